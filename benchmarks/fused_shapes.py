"""Shapes of the fused engine side by side: how `shape_for` was chosen, and where each shape's time goes.

A shape is SLOTS,MOLECULES,COLUMNS,WARPS,SPLIT,PAIR_COLUMNS,PAIR_WARPS,EARLY,REPEATED or
PROGRAMS,WARPS,CHUNK,REGISTERS: the attributes of `mlff_exp.fused.Stages` or `mlff_exp.fused.Molecules`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np
import torch
from ase.build import molecule

from mlff_exp import checkpoint
from mlff_exp.batch import AtomicBatch, collate
from mlff_exp.config import FUSED_PRECISIONS, Precision
from mlff_exp.correctness import require_correct
from mlff_exp.engine import CudaGraphEngine, Engine, make_engine
from mlff_exp.fused import FusedEngine, Molecules, Shape, Stages, shape_for
from mlff_exp.kernels import launched
from mlff_exp.painn import PaiNN
from mlff_exp.timing import Candidate, measure, median_ms, ratio

DISPLACEMENT_ANG = 0.05


def parse_shape(words: str) -> Shape:
    """A shape from its numbers.

    Raises:
        argparse.ArgumentTypeError: naming them and what they should be.
    """
    try:
        numbers = [int(word) for word in words.split(",")]
        if len(numbers) == len(fields(Molecules)):
            return Molecules(*numbers)
        slots, molecules, columns, warps, split, pair_columns, pair_warps, early, repeated = numbers
    except ValueError as error:
        legal = " nor ".join(",".join(field.name for field in fields(kind)) for kind in (Stages, Molecules))
        raise argparse.ArgumentTypeError(f"{words!r} is neither {legal} in whole numbers") from error
    return Stages(slots, molecules, columns, warps, bool(split), pair_columns, pair_warps, bool(early), repeated)


def benzenes(n_systems: int, cutoff: float, device: torch.device, seed: int) -> AtomicBatch:
    """Displaced at random, each otherwise."""
    random, systems = np.random.default_rng(seed), []
    for _ in range(n_systems):
        atoms = molecule("C6H6")
        atoms.positions += random.normal(scale=DISPLACEMENT_ANG, size=atoms.positions.shape)
        systems.append(atoms)
    return collate(systems, cutoff, device=device)


def rows(name: str, precision: Precision, n_systems: int, shapes: list[Shape], min_calls: int) -> list[str]:
    """Table rows of one batch size; every shape is compared with eager FP64, then all are timed in turns."""
    device, model = torch.device("cuda"), checkpoint.load(name).model.to("cuda")
    if not isinstance(model, PaiNN):
        raise SystemExit(f"fused_shapes: {name} is not of this project's architecture")
    batch, other = (benzenes(n_systems, model.architecture.cutoff, device, seed) for seed in range(2))
    reference = make_engine(model, "eager", "fp64", device)
    chosen = shape_for(n_systems, batch.n_slots, precision)
    engines: dict[Shape, Engine] = {}
    for shape in dict.fromkeys([chosen, *shapes]):
        engines[shape] = CudaGraphEngine("fused", FusedEngine(model, precision, device, shape))
        require_correct(engines[shape], reference, batch, precision)
    captured = make_engine(model, "cuda_graph", precision, device)
    captured(batch)
    turns = itertools.cycle((batch, other))
    candidates = {
        str(key): Candidate(lambda engine=engine: engine(next(turns)), min_calls, 0.2)  # type: ignore[misc]
        for key, engine in [("cuda_graph", captured), *engines.items()]
    }
    timing = measure(candidates, device)
    lines = []
    for shape, engine in engines.items():
        faster = ratio(timing["cuda_graph"], timing[str(shape)])
        found = launched(functools.partial(engine, batch))
        kernels = "; ".join(f"{kernel.name} {kernel.total_us:.1f} µs/{kernel.launches}" for kernel in found)
        lines.append(
            f"| {precision} | {n_systems} | {','.join(str(int(number)) for number in astuple(shape))}"
            f"{' (chosen)' if shape == chosen else ''} | {1000 * median_ms(timing[str(shape)]):.1f} | "
            f"{faster.value:.2f}× [{faster.ci_low:.2f}, {faster.ci_high:.2f}] | {kernels} |"
        )
    return lines


def main() -> None:
    """Print the table and write it to a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fused_shapes", description=__doc__)
    parser.add_argument("--checkpoint", default="student", help="a shipped name or a path")
    parser.add_argument("--precision", nargs="+", choices=FUSED_PRECISIONS, default=["fp32", "fp16_autocast"])
    parser.add_argument("--batch-size", nargs="+", type=int, default=[1, 16, 132, 1024], help="benzenes side by side")
    parser.add_argument("--shape", action="append", type=parse_shape, default=[], help="besides the one that is chosen")
    parser.add_argument("--min-calls", type=int, default=200, help="samples of each")
    parser.add_argument("--output", type=Path, required=True, help="directory for fused_shapes.md")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("fused_shapes: the fused engine needs a CUDA GPU")
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / "fused_shapes.md").open("w") as file:
        for line in (
            f"{torch.cuda.get_device_name()}, torch {torch.__version__}",
            "",
            "| precision | molecules | shape | µs | against `cuda_graph` | kernels: µs of all launches |",
            "| --- | --- | --- | --- | --- | --- |",
        ):
            print(line, file=file)
        for precision in options.precision:
            for n_systems in options.batch_size:
                for line in rows(options.checkpoint, precision, n_systems, options.shape, options.min_calls):
                    print(line)
                    print(line, file=file, flush=True)


if __name__ == "__main__":
    main()
