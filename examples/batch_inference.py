"""Energies and forces of many different molecules in one call.

    python examples/batch_inference.py --batch-size 64
    python examples/batch_inference.py --batch-size 64 molecules.extxyz

Without a file: structures of molecules that no shipped student was trained on, compared with the labels of their
    teacher.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from mlff_exp.calculator import StudentForceFieldCalculator
from mlff_exp.structures import VALIDATION, Dataset

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("file", nargs="?", type=Path, help="anything that ASE reads")
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--device", default=None, help="cpu or cuda; CUDA if it is there")
parser.add_argument("--fp16", action="store_true", help="FP16 products; a GPU only")
parser.add_argument("--eager", action="store_true", help="do not compile")
arguments = parser.parse_args()

labels = Dataset.load(VALIDATION)
chosen = np.linspace(0, len(labels) - 1, arguments.batch_size).astype(int)
systems: list[Atoms] = (
    [labels.atoms(int(index)) for index in chosen] if arguments.file is None else read(arguments.file, ":")
)

calculator = StudentForceFieldCalculator(
    "student", device=arguments.device, use_fp16=arguments.fp16, use_compile=not arguments.eager
)
results: list[dict[str, np.ndarray]] = []
for first in range(0, len(systems), arguments.batch_size):
    results += calculator.calculate_batch(systems[first : first + arguments.batch_size])
started = time.perf_counter()
calculator.calculate_batch(systems[: arguments.batch_size])  # once more, now that it is compiled
milliseconds = 1000 * (time.perf_counter() - started)

for atoms, result in list(zip(systems, results, strict=True))[:5]:
    largest = np.linalg.norm(result["forces"], axis=1).max()
    print(f"{atoms.get_chemical_formula():12} {result['energy']:12.3f} eV   largest force {largest:.3f} eV/Å")
print(f"{len(systems)} structures, {milliseconds:.1f} ms for a batch of {min(arguments.batch_size, len(systems))}")
if arguments.file is None:
    errors = [(r["energy"] - labels.energies[i]) / len(a) for a, r, i in zip(systems, results, chosen, strict=True)]
    print(f"energy against the teacher: {1000 * np.abs(errors).mean():.2f} meV/atom")
