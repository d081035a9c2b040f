"""Molecular dynamics in ASE: a picosecond of ethanol at constant energy, and the conservation of that energy.

python examples/ase_md.py --steps 2000
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from ase import units
from ase.build import molecule
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from mlff_exp.calculator import StudentForceFieldCalculator

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=2000, help="of 0.5 fs each")
parser.add_argument("--device", default=None, help="cpu or cuda; CUDA if it is there")
parser.add_argument("--eager", action="store_true", help="do not compile: starts at once and is slower per step")
arguments = parser.parse_args()

atoms = molecule("CH3CH2OH")
atoms.calc = StudentForceFieldCalculator("student", device=arguments.device, use_compile=not arguments.eager)
atoms.calc.warmup(atoms)  # compiles now, and not in the first step

BFGS(atoms, logfile=None).run(fmax=0.01)
# Half of the energy goes into stretching bonds: 600 K at the minimum become some 300 K.
thermalize_momenta(atoms, temperature_K=600, rng=np.random.default_rng(0))
Stationary(atoms)
ZeroRotation(atoms)

energies: list[float] = []
dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
dynamics.attach(lambda: energies.append(atoms.get_total_energy()), interval=10)
started = time.perf_counter()
dynamics.run(arguments.steps)
seconds = time.perf_counter() - started

print(atoms.calc)
print(f"{arguments.steps / seconds:.0f} steps/s, {arguments.steps * 0.5e-6 / seconds * 86400:.2f} ns/day")
print(f"total energy {energies[-1]:.4f} eV, standard deviation {1000 * np.std(energies) / len(atoms):.3f} meV/atom")
print(atoms.calc.get_timing_stats())
