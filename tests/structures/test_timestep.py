"""The timestep that suits what moves."""

from __future__ import annotations

import pytest
from ase import Atoms
from ase.build import bulk, molecule

from mlff_exp.structures.timestep import usual_timestep


@pytest.mark.parametrize(
    ("atoms", "fs", "reason"),
    [
        (molecule("C6H6"), 0.5, "hydrogen"),
        (molecule("CO2"), 0.5, "(C–O)"),
        (molecule("N2"), 0.5, "(N–N)"),
        (bulk("C", "diamond", a=3.57), 0.5, "(C–C)"),
        (molecule("SO2"), 1.0, "light atoms move (O)"),
        (bulk("MgO", "rocksalt", a=4.21), 1.0, "light atoms move (O)"),
        (bulk("SiC", "zincblende", a=4.36), 1.0, "light atoms move (C)"),
        (bulk("Cu", "fcc", a=3.615), 2.0, "neither hydrogen nor"),
        (bulk("Si", "diamond", a=5.431), 2.0, "neither hydrogen nor"),
        (bulk("Li", "bcc", a=3.49), 2.0, "neither hydrogen nor"),
    ],
    ids=str,
)
def test_the_fastest_motion_decides(atoms: Atoms, fs: float, reason: str) -> None:
    chosen = usual_timestep([atoms])
    assert chosen.fs == fs
    assert reason in chosen.reason


def test_systems_of_one_batch_share_the_shortest() -> None:
    copper = bulk("Cu", "fcc", a=3.615)
    assert usual_timestep([copper, molecule("SO2")]).fs == 1.0
    assert usual_timestep([copper, molecule("SO2"), molecule("H2O")]).fs == 0.5
