"""Checks by `task=inference` of the engine that it times; complete runs are in test_commands.py."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.io import write

from mlff_exp.config.errors import ConfigError, UnavailableError
from mlff_exp.engines.ase import AseEngine
from mlff_exp.engines.eager import EagerEngine
from mlff_exp.engines.inductor import count_graphs
from mlff_exp.engines.prediction import EngineError, Prediction
from mlff_exp.measure.correctness import require_same_forces
from mlff_exp.models.graph import GraphModel
from mlff_exp.models.loading import load_model, package_calculator
from mlff_exp.models.painn import PaiNN
from mlff_exp.models.registry import MODELS
from mlff_exp.report.content import warned
from mlff_exp.report.terminal import describe_result
from mlff_exp.results.result import Timing
from mlff_exp.structures.batch import AtomicBatch, collate
from mlff_exp.tasks.machine import on_this_machine
from mlff_exp.tasks.speedups import speedup_metrics
from mlff_exp.tasks.workload import N_GEOMETRIES, Workload, all_evaluated
from tests.conftest import rattled
from tests.helpers.here import configured, run_here, undocumented
from tests.helpers.networks import crystal
from tests.helpers.package_model import SPEC, PackageModel
from tests.helpers.process import settings_of_the_process
from tests.helpers.results import CONFIG
from tests.outside.package.outside_force_field.network import Pairs

CPU = torch.device("cpu")


class Cached(EagerEngine):
    """Evaluates once."""

    kept: Prediction | None = None

    def __call__(self, batch: AtomicBatch) -> Prediction:
        self.evaluations += batch.n_systems  # and says that it was more often
        self.kept = self.kept or super().__call__(batch)
        return self.kept


def workload(engine: EagerEngine | AseEngine, *systems: Atoms) -> Workload:
    return Workload(engine, collate(systems, 5.0), 0)


def test_no_two_calls_in_turn_are_at_the_same_positions(random_model: PaiNN) -> None:
    one = workload(EagerEngine(random_model, "fp64", CPU), rattled("H2O", 0))
    seen = [one.call().forces for _ in range(3 * N_GEOMETRIES)]
    assert not any(torch.equal(*pair) for pair in pairwise(seen))


def test_what_comes_from_a_cache_is_not_believed(random_model: PaiNN) -> None:
    systems = rattled("H2O", 0), rattled("CH4", 1)
    with all_evaluated([workload(EagerEngine(random_model, "fp64", CPU), *systems)]):
        pass
    with (
        pytest.raises(RuntimeError, match="eager gave the same forces at other positions: they came from a cache"),
        all_evaluated([workload(Cached(random_model, "fp64", CPU), *systems)]),
    ):
        pass


def test_an_atom_that_is_alone_feels_the_same_everywhere(random_model: PaiNN) -> None:
    with all_evaluated([workload(EagerEngine(random_model, "fp64", CPU), Atoms("O"))]):
        pass


def test_calls_that_no_evaluation_stands_behind_are_refused() -> None:
    """ASE's cache knows the positions of the last call, and no others."""
    engine = AseEngine(EMT())
    one = workload(engine, rattled("H2O", 0))
    with all_evaluated([one, workload(engine, rattled("H2O", 1))]):
        for _ in range(3):
            one.call()
    stale = workload(AseEngine(EMT()), rattled("H2O", 0))
    stale.geometries = stale.geometries[:1] * N_GEOMETRIES
    with pytest.raises(RuntimeError, match="ase/EMT was asked for 3 evaluations and did 1"), all_evaluated([stale]):
        [stale.call() for _ in range(3)]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_every_call_of_a_calculator_calculates(batch_size: int, tmp_path: Path) -> None:
    """With one system ASE's cache holds the last call; what is timed must not be its answers."""
    emt = "model.calculator={_target_:ase.calculators.emt.EMT}"
    words = ["task=inference", "model=ase", emt, "system=water", "task.min_calls=100", "task.min_time_s=0.01"]
    result = run_here(tmp_path, *words, f"batch_size={batch_size}")
    values = result.timing["engine"].values_ms
    assert min(values) > 0.3 * np.median(values)


def test_a_calculator_is_timed_on_a_crystal(tmp_path: Path) -> None:
    words = ["task=inference", "model=ase", "model.calculator={_target_:ase.calculators.emt.EMT}", "system=copper"]
    result = run_here(tmp_path, *words, "task.min_calls=5", "task.min_time_s=0.01")
    assert len(result.timing["engine"].values_ms) >= 5


def test_a_baseline_is_never_paid_back() -> None:
    """Only what is faster than it can be; and never before the first call has ended."""
    fast = Timing((1.0,) * 100, (), 2.0, (2,) * 50)
    slow = Timing((3.0,) * 100, (), 1.0, (2,) * 50)
    words = ["task=inference", "system=water", "precision=fp32"]
    timing = {"engine": fast, "eager_fp32": slow}
    found = speedup_metrics(timing, configured(*words, "engine=compile"))
    assert found["speedup_vs_baseline"] == pytest.approx(3)
    assert found["break_even_calls"] == pytest.approx(1 + 1.0 / 0.002)
    assert "break_even_calls" not in speedup_metrics(timing, configured(*words, "engine=eager"))
    assert "break_even_calls" not in speedup_metrics({"engine": slow, "eager_fp32": fast}, configured(*words))
    quick = {"engine": replace(fast, first_call_s=0.5), "eager_fp32": slow}
    assert speedup_metrics(quick, configured(*words, "engine=compile"))["break_even_calls"] == 1


def test_an_engine_that_is_named_is_timed_beside_it(tmp_path: Path) -> None:
    words = ["task=inference", "engine=eager", "model.checkpoint=student_small", "system=water", "device=cpu"]
    result = run_here(tmp_path, *words, "task.min_calls=10", "task.min_time_s=0.01", "task.baselines=[eager]")
    assert 0.5 < result.metrics["speedup_vs_eager"] < 2
    assert result.metrics["speedup_vs_eager_ci_low"] <= result.metrics["speedup_vs_eager_ci_high"]
    assert undocumented(result) == set()


def test_engines_beside_and_baselines_are_checked_before_they_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[tuple[str, str]] = []

    def note(engine: EagerEngine, *rest: object) -> None:
        checked.append((engine.name, engine.precision))

    monkeypatch.setattr("mlff_exp.tasks.baselines.require_correct", note)
    words = ["task=inference", "engine=eager", "precision=fp64", "model.checkpoint=student_small", "system=water"]
    run_here(tmp_path, *words, "device=cpu", "task.min_calls=2", "task.min_time_s=0.01", "task.baselines=[eager]")
    assert checked == [("eager", "fp64"), *[("eager", "fp32")] * 3, ("eager", "fp64")]


CRYSTAL = ["task=inference", "engine=eager", "device=cpu", "task.min_calls=2", "task.min_time_s=0.01", "system=file"]
STRESS_METRICS = {"stress_rmse_vs_fp64_gpa", "stress_relative_rmse_vs_fp64_percent"}


@pytest.fixture
def crystal_words(tmp_path: Path) -> list[str]:
    write(tmp_path / "crystal.xyz", crystal(1, 2))
    return [*CRYSTAL, "model.checkpoint=student_small", f"system.path={tmp_path}/crystal.xyz"]


def test_the_stress_of_a_crystal_is_computed_by_all_that_are_timed(
    crystal_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gave: list[bool] = []

    def note(engine: EagerEngine, reference: EagerEngine, batch: AtomicBatch, *rest: object) -> None:
        gave.append(engine(batch).stress is not None is not reference(batch).stress)

    monkeypatch.setattr("mlff_exp.tasks.baselines.require_correct", note)
    metrics = run_here(tmp_path, *crystal_words, "precision=bf16_autocast").metrics
    assert gave == [True] * 4
    assert 1e-4 < metrics["stress_relative_rmse_vs_fp64_percent"] < 5
    assert 1e-6 < metrics["stress_rmse_vs_fp64_gpa"] < 1


def test_the_stress_is_left_out_where_it_is_not_wanted_or_not_there(crystal_words: list[str], tmp_path: Path) -> None:
    without = run_here(tmp_path, *crystal_words, "task.stress=never")
    assert not STRESS_METRICS & without.metrics.keys()
    assert without.tags["stress.left_out"] == "task.stress=never"
    assert "no stress: task.stress=never" in describe_result(replace(without, config=CONFIG))
    (warning,) = (one for one in warned([replace(without, config=CONFIG)]) if "stress" in one.summary)
    assert warning.details[0].endswith("task.stress=never")
    molecule = run_here(tmp_path, *CRYSTAL[:-1], "model.checkpoint=student_small", "system=water")
    assert not STRESS_METRICS & molecule.metrics.keys()
    assert "stress.left_out" not in molecule.tags


def test_a_required_stress_that_is_not_there_is_refused(tmp_path: Path) -> None:
    words = ["task=inference", "task.stress=required", "device=cpu"]
    with pytest.raises(
        ConfigError, match=r"task\.stress=required: there is no stress, because a system is not periodic"
    ):
        run_here(tmp_path, *words, "engine=eager", "system=water")
    with pytest.raises(
        UnavailableError, match=r"model=ase gives no stress; use one of engine=eager, compile, cuda_graph"
    ):
        on_this_machine(configured(*words, "model=ase", "system=copper"))
    with pytest.raises(UnavailableError, match=r"task\.baselines=fused gives no stress"):
        on_this_machine(configured(*words, "engine=eager", "task.baselines=[fused]"))
    with pytest.raises(ConfigError, match=r"task\.stress='yes' is not one of: auto, required, never"):
        configured(*words[:1], "task.stress=yes")


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_baseline_that_repeats_another_is_measured_once(precision: str, batch_size: int, tmp_path: Path) -> None:
    words = ["task=inference", "engine=eager", "model.checkpoint=student_small", "system=water", "device=cpu"]
    sizes = [f"batch_size={batch_size}", f"precision={precision}", "task.min_calls=20", "task.min_time_s=0.01"]
    timing = run_here(tmp_path, *words, *sizes).timing
    is_baseline = precision == "fp32"
    assert (timing["eager_fp32"].values_ms == timing["control_same"].values_ms) == is_baseline
    assert timing["same_engine_fp32"].values_ms == timing["eager_fp32"].values_ms
    assert (timing["eager_fp32_single"].values_ms == timing["eager_fp32"].values_ms) == (batch_size == 1)


def test_what_is_compiled_again_is_counted() -> None:
    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    compiled = torch.compile(double, backend="eager", dynamic=False)
    compiled(torch.ones(2))
    before = count_graphs()
    compiled(torch.zeros(2))
    assert count_graphs() == before
    compiled(torch.ones(3))
    assert count_graphs() == before + 1


@pytest.mark.gpu
@pytest.mark.parametrize("batch_size", [1, 16])
def test_eager_needs_as_much_memory_as_itself_on_the_gpu(batch_size: int, tmp_path: Path) -> None:
    words = ["task=inference", "engine=eager", "precision=fp32", "device=cuda", f"batch_size={batch_size}"]
    result = run_here(tmp_path, *words, "task.min_calls=2", "task.min_time_s=0.01")
    assert result.metrics["memory_vs_baseline"] == pytest.approx(1, abs=0.05)


def test_an_element_in_a_file_is_said_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "si.xyz").write_text("2\n\nSi 0 0 0\nSi 0 0 2.2\n")
    words = ["task=inference", "engine=eager", "device=cpu", "system=file", f"system.path={tmp_path}/si.xyz"]
    with pytest.raises(ConfigError, match=r"system\.path=.*/si\.xyz': the model was not trained on Si"):
        run_here(tmp_path / "run", *words)


@pytest.fixture
def package_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(MODELS, "_specs", dict(MODELS._specs))
    MODELS.register(SPEC)
    return "package_model"


def test_the_calculator_of_the_package_is_timed_beside_the_engine(package_model: str) -> None:
    loaded, calculator = load_model(PackageModel(), []), package_calculator(PackageModel(), "cpu", False)
    engine = EagerEngine(loaded.model, "fp32", CPU)
    before = settings_of_the_process()
    own = Workload(AseEngine(calculator), collate([rattled("H2O", 0)], 4.0), 0)
    with all_evaluated([own]):
        require_same_forces(own.engine, engine, own.geometries[0])
    assert settings_of_the_process() == before
    assert package_calculator(configured("task=inference", "system=water").model, "cpu", False) is None


def test_forces_of_another_model_are_no_baseline(package_model: str) -> None:
    engine = EagerEngine(GraphModel(Pairs(4.0, 4)), "fp32", CPU)
    other = EagerEngine(GraphModel(Pairs(4.1, 4)), "fp32", CPU)
    with pytest.raises(EngineError, match=r"eager: forces are 0\.\d+ off eager FP64, relative, allowed 0.001"):
        require_same_forces(other, engine, collate([rattled("H2O", 0)], 4.1))


def test_a_speedup_over_the_calculator_is_per_structure() -> None:
    one, ten = Timing((1.0,) * 100, (), 1.0, (2,) * 50), Timing((10.0,) * 100, (), 1.0, (2,) * 50)
    words = ["task=inference", "system=water", "engine=compile", "batch_size=4"]
    found = speedup_metrics({"engine": one, "eager_fp32": ten, "ase_calculator": ten}, configured(*words))
    assert found["speedup_vs_calculator"] == pytest.approx(40)
