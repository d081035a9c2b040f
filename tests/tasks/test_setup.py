"""The models and systems with which every task begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator

from mlff_exp.config.errors import ConfigError
from mlff_exp.engines.registry import ENGINES, SystemFacts
from mlff_exp.tasks.setup import described_systems, prepare_model
from tests.helpers.here import configured


def test_a_calculator_may_be_named_as_in_earlier_versions() -> None:
    pytest.importorskip("tblite")
    earlier = configured(
        "model=ase", "device=cpu", "model.calculator._target_=mlff_exp.labelling.teacher_calculator"
    )  # fmt: skip
    with pytest.warns(FutureWarning, match=r"0\.3\.0 will refuse: write mlff_exp\.distill\.teacher_calculator"):
        moved = prepare_model(earlier)
    assert moved.engine.name == prepare_model(configured("model=ase", "device=cpu")).engine.name == "ase/TBLite"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("method=/etc/passwd", "Method '/etc/passwd' is not available"),
        ("method=GFN9", "Method 'GFN9' is not available"),
        ("+model.calculator.guess=foo", "argument 'foo'"),
        ("+model.calculator.accuracy=x", "must be real number, not str"),
        ("+model.calculator.max_iterations=-1", "not converged"),
    ],
)
def test_a_wrong_word_for_a_calculator_is_refused_before_any_work(word: str, message: str) -> None:
    pytest.importorskip("tblite")
    target = "model.calculator._target_=tblite.ase.TBLite"
    setting = word if word.startswith("+") else f"+model.calculator.{word}"
    with pytest.raises(
        ConfigError, match=f"model.calculator: TBLite can't evaluate H2 with these arguments: .*{message}"
    ):
        prepare_model(configured("model=ase", "device=cpu", target, setting))


def test_an_engine_refuses_the_system_of_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def takes(facts: SystemFacts) -> str | None:
        return f"it takes no cell of {facts.n_atoms} atoms" if facts.periodic else None

    monkeypatch.setitem(ENGINES._specs, "eager", replace(ENGINES["eager"], takes=takes))
    bulk("C").write(path := tmp_path / "diamond.cif")
    config = configured("system=file", f"system.path={path}", "device=cpu", "engine=eager")
    with pytest.raises(
        ConfigError, match=r"diamond\.cif.*: engine=eager can't run diamond: it takes no cell of 2 atoms"
    ):
        described_systems(config, prepare_model(config))


def test_a_system_of_an_element_that_the_model_does_not_know_is_refused() -> None:
    config = configured("system=copper", "model.checkpoint=student_small", "device=cpu", "engine=eager")
    with pytest.raises(ConfigError, match=r"^system\.name=copper: .*Cu") as caught:
        described_systems(config, prepare_model(config))
    assert "\n" not in str(caught.value)


class NoForceField(Calculator):
    """A calculator of somebody's own that checks no argument."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, does: str) -> None:
        super().__init__()
        self._does = does

    def calculate(self, atoms: Atoms | None = None, *rest: Any) -> None:
        super().calculate(atoms, *rest)
        factor: Any = {"nothing": 0.0, "no number": np.nan, "wrong": [1, 2]}[self._does]
        self.results = {"energy": 0.0, "forces": factor * np.ones((len(self.atoms), 3))}


@pytest.mark.parametrize(
    ("does", "message"),
    [
        ("nothing", "no atom feels a force"),
        ("no number", "a force is missing, infinite or NaN"),
        ("wrong", "can't evaluate it with these arguments: ValueError: operands"),
        ("other", "can't evaluate it with these arguments: KeyError: 'other'"),
    ],
)
def test_any_calculator_is_tried_out_on_the_system(does: str, message: str) -> None:
    words = ["model.calculator._target_=tests.tasks.test_setup.NoForceField", f"+model.calculator.does='{does}'"]
    config = configured("model=ase", "device=cpu", "system=water", "trust=[tests]", *words)
    with pytest.raises(ConfigError, match=rf"^model\.calculator: system\.name=water: NoForceField .*{message}"):
        described_systems(config, prepare_model(config))


def test_forces_that_vanish_by_symmetry_are_no_fault() -> None:
    config = configured(
        "model=ase", "device=cpu", "system=copper", "model.calculator={_target_:ase.calculators.emt.EMT}"
    )
    described_systems(config, prepare_model(config))
