"""When does a trajectory count as broken?"""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule

from mlff_exp.distill.exploration import COLLISION_ANG, _Integrity
from mlff_exp.dynamics.verlet import BROKEN_BOND_ANG


def test_a_broken_bond_a_collision_or_nan_break_a_system() -> None:
    systems = [molecule("H2O"), molecule("CH4"), molecule("H2"), Atoms("He")]
    numbers, positions = np.zeros((4, 5), dtype=np.int64), torch.zeros(4, 5, 3, dtype=torch.float64)
    for index, atoms in enumerate(systems):
        numbers[index, : len(atoms)] = atoms.numbers
        positions[index, : len(atoms)] = torch.from_numpy(atoms.positions)
    integrity = _Integrity(numbers, positions)

    def broken(system: int, slot: int, to: torch.Tensor) -> list[bool]:
        moved = positions.clone()
        moved[system, slot] = to
        return [bool(one) for one in integrity.broken(moved)]

    assert not integrity.broken(positions).any()
    away = positions[0, 1] - positions[0, 0]
    away /= away.norm()
    length = (positions[0, 1] - positions[0, 0]).norm()
    for change, expected in ((0.99, False), (1.01, True)):
        assert broken(0, 1, positions[0, 0] + (length + change * BROKEN_BOND_ANG) * away)[0] is expected
    along = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    assert broken(1, 2, positions[1, 1] + 0.99 * COLLISION_ANG * along) == [False, True, False, False]
    assert broken(2, 1, torch.full((3,), torch.nan, dtype=torch.float64)) == [False, False, True, False]
    assert not any(broken(0, 4, positions[0, 0])), "padding is no atom"
