"""ASE calculators as engines, and engines as ASE calculators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from mlff_exp.engines.ase import AseEngine, EngineCalculator
from mlff_exp.engines.factory import make_engine
from mlff_exp.models.painn import PaiNN
from mlff_exp.structures.batch import collate
from tests.conftest import rattled
from tests.helpers.command import NVE, mlff_exp, results
from tests.helpers.here import run_here
from tests.helpers.refused import said_against

EMT_MODEL = ["model=ase", "model.calculator={_target_:ase.calculators.emt.EMT}", "system=water", "tracking=offline"]


def test_a_calculator_runs_system_by_system() -> None:
    systems = [rattled("H2O", 0), rattled("CH4", 1), rattled("C6H6", 2)]
    batch = collate(systems, 5.0)
    prediction = AseEngine(EMT())(batch)
    forces = batch.per_system(prediction.forces)
    for index, atoms in enumerate(systems):
        atoms.calc = EMT()
        assert prediction.energy[index].item() == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
        np.testing.assert_allclose(forces[index, : len(atoms)], atoms.get_forces(), atol=1e-12)
        assert (forces[index, len(atoms) :] == 0).all()


def test_a_calculator_without_forces_is_refused() -> None:
    class OnlyEnergy(LennardJones):
        implemented_properties = ["energy"]  # noqa: RUF012

    with pytest.raises(ValueError, match="OnlyEnergy does not give forces"):
        AseEngine(OnlyEnergy())


def test_an_engine_is_a_calculator(student: PaiNN) -> None:
    atoms = rattled("C6H6", 0)
    engine = make_engine(student, "eager", "fp64", torch.device("cpu"))
    expected = engine(collate([atoms], 5.0))
    atoms.calc = EngineCalculator(engine)
    assert atoms.get_potential_energy() == expected.energy.item()
    assert (atoms.get_forces() == expected.forces.numpy()).all()


def test_a_calculator_is_timed_alone(tmp_path: Path) -> None:
    finished = mlff_exp(
        tmp_path, *EMT_MODEL, "task=inference", "batch_size=2", "task.min_calls=10", "task.min_time_s=0.01"
    )
    assert finished.returncode == 0, finished.stderr
    (result,) = results(tmp_path)
    assert finished.stdout.startswith("inference · water · ase/EMT · B2")
    assert set(result.timing) == {"engine", "control_same", "control_slower"}
    assert result.tags["engine.ran"] == "ase/EMT"
    assert result.metrics["latency_median_ms"] > 0
    assert not [name for name in result.metrics if "vs_fp64" in name or "speedup" in name]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["engine=eager"], "engine=eager: model=ase runs as it is and takes no engine and no precision"),
        (["precision=fp32,fp64", "-m"], "precision=fp32: model=ase runs as it is"),
    ],
)
def test_words_that_a_calculator_does_not_support_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    overrides: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in said_against(capsys, monkeypatch, *EMT_MODEL, *overrides)


def test_a_calculator_that_is_not_there_is_refused(tmp_path: Path) -> None:
    finished = mlff_exp(tmp_path, *EMT_MODEL, "model.calculator._target_=ase.nowhere.Calculator")
    assert finished.returncode == 2
    assert "model.calculator._target_=ase.nowhere.Calculator: " in finished.stdout + finished.stderr


@pytest.mark.slow
def test_the_teacher_goes_through_the_gate(tmp_path: Path) -> None:
    nve = [word for word in NVE if not word.startswith(("engine=", "model."))]
    result = run_here(tmp_path, *nve, "model=ase", "system=benzene")
    assert result.verdict is not None
    assert all(criterion.value is not None for criterion in result.verdict.criteria)
    assert result.metrics["energy_fluctuation_mev_per_atom"] < 0.2
    assert result.metrics["finite_difference_error_ev_per_ang"] < 1e-3
    assert result.tags["engine.ran"] == "ase/TBLite"
