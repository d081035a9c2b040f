"""A force field is compared with the calculator of its package before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from mlff_exp.config.errors import ConfigError, UnavailableError
from mlff_exp.engines.eager import EagerEngine
from mlff_exp.models.foreign.truth import Truth
from mlff_exp.models.graph import GraphModel
from mlff_exp.models.loading import load_model
from mlff_exp.models.registry import MODELS
from mlff_exp.models.spec import ModelSpec
from mlff_exp.structures.batch import collate
from tests.outside.package.outside_force_field.network import Pairs

WATER = Atoms(molecule("H2O"), cell=[4, 5, 6], pbc=True)
calls: list[str] = []


@dataclass
class Compared:
    """Options of a kind that a test adds.

    Attributes:
        factor: of the energies that the calculator gives.
        shift: of the force on the first atom, eV/Å.
        shear: of a component of the stress, eV/Å³.
        oxygen: eV, added to the energy of the isolated atom in the network.
    """

    name: str = "compared"
    factor: float = 1.0
    shift: float = 0.0
    shear: float = 0.0
    oxygen: float = 0.0


def make(options: Compared, trust: Sequence[str]) -> Pairs:
    network = Pairs(4.0, 4)
    network.elements[8] += options.oxygen
    return network


def truth(options: Compared) -> Truth:
    def calculator(device: str, stress: bool) -> Any:
        assert stress
        calls.append("made")
        engine = EagerEngine(GraphModel(Pairs(4.0, 4)).double(), "fp64", torch.device(device), stress=True)
        found = engine(collate([WATER], 4.0))
        assert found.stress is not None
        forces, voigt = found.forces.numpy(), full_3x3_to_voigt_6_stress(found.stress[0].numpy())
        forces[0, 0] += options.shift
        voigt[4] += options.shear
        energy = options.factor * float(found.energy)
        return SinglePointCalculator(WATER, energy=energy, forces=forces, stress=voigt)

    limits = {"energy_ev_per_atom": 1e-3, "force_ev_per_ang": 1e-4, "stress_ev_per_ang3": 1e-6}
    return Truth(calculator, WATER, ("numpy",), **limits)


def missing(options: Compared, trust: Sequence[str]) -> Any:
    import_module("a_package_that_nobody_has")


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(MODELS, "_specs", dict(MODELS._specs))
    MODELS.register(ModelSpec("compared", Compared, "", f"{__name__}:make", truth=f"{__name__}:truth"))
    calls.clear()


def test_it_is_compared_once_for_the_same_weights(tmp_path: Path) -> None:
    load_model(Compared(), [])
    load_model(Compared(), [])
    assert calls == ["made"]
    (tmp_path / "mlff_exp" / "truth").rename(tmp_path / "gone")
    load_model(Compared(), [])
    assert calls == ["made"] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Compared(factor=-1.0), "energy_ev_per_atom differs by 1.38e"),
        (Compared(factor=1 / 27.2), "energy_ev_per_atom"),
        (Compared(factor=float("nan")), "energy_ev_per_atom differs by nan"),
        (Compared(shift=1e-2), "force_ev_per_ang differs by 0.01, more than 0.0001"),
        (Compared(shear=1e-4), "stress_ev_per_ang3 differs by 0.0001, more than 1e-06"),
    ],
)
def test_one_that_computes_something_else_does_not_run(options: Compared, message: str) -> None:
    for _ in range(2):  # a failure is not remembered as a success
        with pytest.raises(ConfigError, match=f"model=compared: it does not compute .* {message}"):
            load_model(options, [])


def test_another_energy_of_an_isolated_atom_is_another_force_field() -> None:
    load_model(Compared(), [])
    with pytest.raises(ConfigError, match=r"energy_ev_per_atom differs by 0\.667"):
        load_model(Compared(oxygen=2.0), [])


def test_without_a_place_to_remember_it_is_compared_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    load_model(Compared(), [])
    load_model(Compared(), [])
    assert calls == ["made"] * 2


def test_a_missing_package_is_named_with_what_installs_it() -> None:
    MODELS.register(ModelSpec("lacking", Compared, "", f"{__name__}:missing", extra="sevennet"))
    with pytest.raises(UnavailableError, match=r"model=lacking needs a_package_that_nobody_has.*mlff-exp\[sevennet\]"):
        load_model(Compared(name="lacking"), [])
