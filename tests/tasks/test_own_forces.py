"""Models and calculators with forces of their own: they run on the engines, and what is no gradient is called so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ase import Atoms
from ase.build import molecule
from torch import Tensor

from mlff_exp.config.errors import ConfigError
from mlff_exp.engines.ase import AseEngine
from mlff_exp.engines.eager import EagerEngine, energy_and_forces
from mlff_exp.engines.factory import make_engine
from mlff_exp.engines.prediction import EngineError
from mlff_exp.engines.tracing import trace
from mlff_exp.models.graph import GraphModel
from mlff_exp.models.spec import Capabilities
from mlff_exp.report.content import report_content
from mlff_exp.report.terminal import describe_result
from mlff_exp.report.validity import validity
from mlff_exp.results.result import CONSERVATIVE, FORCES_TAG, RunResult
from mlff_exp.structures.batch import AtomicBatch, collate
from mlff_exp.tasks.machine import check_capabilities
from mlff_exp.tasks.own_forces import check_own_forces
from mlff_exp.tasks.setup import gives_stress
from tests.helpers.here import configured, resolved_of, run_here, undocumented
from tests.helpers.networks import OwnForces
from tests.helpers.springs import ScaledForces, Springs, Swirl

CPU = torch.device("cpu")
WORDS = ["system=water", "device=cpu", "engine=eager", "model=torch", "trust=[tests]"]
TIMED = ["task=inference", "precision=fp32", "task.min_calls=5", "task.min_time_s=0.01"]
MOVED = ["task=nve", "precision=fp64", "task.duration_ps=0.06", "task.settle_ps=0.05", "task.probe_ps=0.1"]


def factory(name: str) -> str:
    return f"model.factory=tests.helpers.networks:{name}"


def timed(directory: Path, *words: str) -> RunResult:
    result = run_here(directory, *TIMED, *words)
    assert not undocumented(result)
    return RunResult(resolved_of(*TIMED, *words), metrics=result.metrics, tags=result.tags)


def exact(network: OwnForces) -> EagerEngine:
    return EagerEngine(GraphModel(network).cast(torch.float64).requires_grad_(False), "fp64", CPU)


def test_the_engine_returns_the_forces_of_the_model_and_none_on_padding() -> None:
    engine, batch = exact(OwnForces()), collate([molecule("H2O"), molecule("CH4")], 5.0)
    prediction = engine(batch)
    assert prediction.forces.dtype == prediction.energy.dtype == torch.float64
    assert not prediction.forces[~batch.is_atom].any()
    positions = batch.positions.clone().requires_grad_(True)
    energy, _ = engine.model(batch.with_positions(positions))
    (gradient,) = torch.autograd.grad(energy.sum(), positions)
    torch.testing.assert_close(prediction.forces, -gradient, rtol=1e-10, atol=1e-10)


def test_its_graph_can_be_traced_for_a_compiler() -> None:
    engine, batch = exact(OwnForces(0.1)), collate([molecule("H2O")], 5.0)

    def from_tensors(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return energy_and_forces(engine.model, AtomicBatch(*tensors), "fp64")

    energy, forces = trace(from_tensors, batch.tensors())(*batch.tensors())
    expected = engine(batch)
    torch.testing.assert_close(energy, expected.energy)
    torch.testing.assert_close(forces, expected.forces)


@pytest.mark.parametrize(
    ("forces", "network", "message"),
    [
        ("gradient", OwnForces(), "returned tuple with capabilities.forces='gradient'"),
        ("own", None, "returned Tensor with capabilities.forces='own'"),
    ],
)
def test_a_network_that_returns_something_else_than_it_says_is_refused(
    forces: str, network: OwnForces | None, message: str
) -> None:
    network = OwnForces() if network is None else network
    network.capabilities = Capabilities(forces=forces)  # type: ignore[arg-type]
    if forces == "own":
        network.forward = lambda numbers, *_: torch.zeros(len(numbers))  # type: ignore[assignment]
    with pytest.raises(ValueError, match=message):
        GraphModel(network)(collate([molecule("H2O")], 5.0))


def test_another_word_for_forces_is_refused() -> None:
    with pytest.raises(ValueError, match=r"forces='both' is not one of: gradient, own"):
        Capabilities(forces="both")  # type: ignore[arg-type]


@pytest.mark.parametrize("atoms", [molecule("H2O"), molecule("CH3CH2OH"), Atoms("Ar")], ids=str)
def test_own_forces_are_held_against_energies(atoms) -> None:
    sound, direct = (check_own_forces(exact(OwnForces(mixing)), atoms, 0) for mixing in (0.0, 0.1))
    assert sound[1] == CONSERVATIVE
    assert direct[1].startswith("non-conservative: finite_difference_error") == (len(atoms) > 1)
    assert ("circulation_error" in direct[0]) == (len(atoms) > 1)


def test_calculators_are_held_against_their_energies() -> None:
    for kind, found in ((Springs, CONSERVATIVE), (ScaledForces, "finite_difference"), (Swirl, "circulation")):
        assert found in check_own_forces(AseEngine(kind()), Springs.start, 0)[1], kind


def test_inference_calls_a_direct_force_model_non_conservative(tmp_path: Path) -> None:
    direct = timed(tmp_path, *WORDS, factory("direct_forces"))
    sound = replace(direct, tags={**direct.tags, FORCES_TAG: CONSERVATIVE, "checkpoint.sha256": "0" * 64})
    assert (sound.non_conservative, direct.non_conservative) == (False, True)
    assert validity(sound, [sound, direct]) == ""
    assert validity(direct, [sound, direct]) == "no: non-conservative"
    assert "no: non-conservative" in describe_result(direct)
    assert direct.metrics["circulation_error"] > 1e-4
    content = report_content([sound, direct])
    (warning,) = [one for one in content.warnings if one.summary.startswith("non-conservative: the forces of 1 of 2")]
    assert "circulation_error is" in warning.details[0]


def test_nve_calls_a_direct_force_model_non_conservative(tmp_path: Path) -> None:
    result = run_here(tmp_path, *MOVED, *WORDS, factory("direct_forces"), "task.record_every=1")
    assert result.verdict is not None
    assert result.verdict.decision == "NO-GO"
    assert result.non_conservative
    missed = {criterion.metric for criterion in result.verdict.criteria if criterion.held is False}
    assert {"circulation_error", "finite_difference_error_ev_per_ang", "engine_circulation_error"} <= missed
    assert "The force field is non-conservative" in (tmp_path / "validation_report.txt").read_text()


def test_it_gives_no_stress() -> None:
    can = Capabilities(forces="own")
    words = [*WORDS, *TIMED, factory("direct_forces")]
    assert not gives_stress(configured(*words), can)
    assert gives_stress(configured(*words), Capabilities())
    with pytest.raises(ConfigError, match="model=torch has forces of its own and gives no stress"):
        check_capabilities(can, configured(*words, "task.stress=required"))
    with pytest.raises(EngineError, match="own gives no stress"):
        make_engine(GraphModel(OwnForces()), "eager", "fp64", CPU, stress=True)
