"""Timestep, length and temperature that suit what moves."""

from __future__ import annotations

import pytest
from ase import Atoms
from ase.build import bulk, molecule

from mlff_exp.structures.motion import usual_motion


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
    chosen = usual_motion([atoms])
    assert chosen.timestep_fs == fs
    assert chosen.duration_ps == pytest.approx(200 * fs), "200,000 steps"
    assert (chosen.temperature_k, chosen.cold) == (300.0, "")
    assert reason in chosen.reason


def test_systems_of_one_batch_share_the_shortest() -> None:
    copper = bulk("Cu", "fcc", a=3.615)
    assert usual_motion([copper, molecule("SO2")]).timestep_fs == 1.0
    assert usual_motion([copper, molecule("SO2"), molecule("H2O")]).timestep_fs == 0.5


def test_noble_gases_move_below_their_melting_points() -> None:
    argon, copper = bulk("Ar", "fcc", a=5.26), bulk("Cu", "fcc", a=3.615)
    assert usual_motion([argon]).temperature_k == 50.0
    assert "noble gases" in usual_motion([argon]).cold
    assert usual_motion([copper, argon]).temperature_k == 50.0, "one batch has the lowest temperature"
    assert usual_motion([Atoms("ArH", [[0, 0, 0], [0, 0, 2]])]).temperature_k == 300.0
