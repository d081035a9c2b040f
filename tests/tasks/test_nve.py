"""`task=nve` on force fields that are known to be right or wrong; every trajectory is short."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import units
from ase.build import molecule
from ase.io import read

from mlff_exp.config.config import Config
from mlff_exp.config.errors import ConfigError
from mlff_exp.config.gate import Gate
from mlff_exp.dynamics import checks, start, verlet
from mlff_exp.dynamics.checks import teacher_drift
from mlff_exp.dynamics.recording import Trajectory
from mlff_exp.dynamics.restart import save_state
from mlff_exp.dynamics.start import TemperatureError, prepare_start
from mlff_exp.dynamics.verlet import Dynamics
from mlff_exp.engines.eager import EagerEngine
from mlff_exp.engines.prediction import EngineError
from mlff_exp.models.checkpoint import load_checkpoint
from mlff_exp.results.estimate import Estimate
from mlff_exp.results.gate import judge_gate
from mlff_exp.results.result import RunResult
from mlff_exp.tasks import nve, nve_files
from mlff_exp.tasks.ensemble import Ensemble, load_ensembles
from mlff_exp.tasks.gradient import gradient_metrics, inapplicable_metrics
from mlff_exp.tasks.nve import _minima, run
from mlff_exp.tasks.setup import ModelUnderTest, prepare_model
from tests.conftest import rattled
from tests.helpers.engines import Faulty
from tests.helpers.here import configured, run_here, undocumented
from tests.helpers.springs import BoxOfSprings as BoxOfSprings
from tests.helpers.springs import RoundedSprings as RoundedSprings
from tests.helpers.springs import ScaledForces as ScaledForces
from tests.helpers.springs import Springs
from tests.helpers.springs import Swirl as Swirl

SHORT = ["task=nve", "system=benzene", "gate=strict", "engine=eager", "precision=fp32", "device=cpu"]
SHORT += ["task.duration_ps=0.2", "task.settle_ps=0.1", "task.probe_ps=0.2", "model.checkpoint=student_small"]
BROKEN = ["model=ase", "system=ethanol", *(w for w in SHORT if not w.startswith(("system", "engine", "prec", "model")))]


@pytest.fixture(autouse=True)
def _draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure takes as long as hundreds of steps; `tests/cli/test_commands.py` draws it."""
    monkeypatch.setattr(nve, "plot_nve", lambda *arguments: arguments[-1].touch())


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any temperature will do, and checks take few steps: for tests that look at neither."""
    monkeypatch.setattr(start, "TEMPERATURE_TOLERANCE", 10.0)
    monkeypatch.setattr(checks, "PROBE_FS", 20.0)
    monkeypatch.setattr(checks, "REVERSED_STEPS", 20)
    monkeypatch.setattr(checks, "MAX_DIFFERENCED_COORDINATES", 3)


def judged(result: RunResult) -> dict[str, bool | None]:
    assert result.verdict is not None
    return {criterion.metric: criterion.held for criterion in result.verdict.criteria if not criterion.inapplicable}


class NoisyForces(Springs):
    """30 meV/Å on every component, as a bad precision would."""

    def spoil(self) -> None:
        self.results["forces"] += self.rng.normal(scale=0.03, size=(len(self.atoms), 3))


class NoEnvelope(Springs):
    """Atoms that are not bonded attract one another up to a distance which they keep crossing, and no farther."""

    def spoil(self) -> None:
        self.results["energy"] -= 0.01 * (self.distances < self.lengths)[self.lengths > 3].sum()


def of_calculator(name: str) -> list[str]:
    return [*BROKEN, "trust=[tests]", f"model.calculator._target_=tests.tasks.test_nve.{name}"]


def test_a_sound_force_field_passes_what_the_broken_ones_fail(tmp_path: Path) -> None:
    result = run(configured(*of_calculator("Springs"), "task.duration_ps=2", "task.replicas=3"), tmp_path)
    assert result.verdict is not None
    assert result.verdict.decision == "GO"
    assert all(judged(result).values())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("2\n\nH 0 0 0\nH 0 0 30\n", "atoms 0, 1 feel"),
        ("3\n\nO 0 0 0\nH 500 0 0\nH 0 500 0\n", "atoms 0, 1, 2 feel"),
        ("4\n\nO 0 0 0\nH 0 0 0.96\nH 0 0.93 -0.24\nH 0 0 40\n", "atoms 3 feel"),
    ],
)
def test_atoms_that_feel_nothing_are_refused(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "far.xyz").write_text(text)
    words = ["device=cpu", "engine=eager", "model.checkpoint=student_small", "task=nve", "gate=off", "system=file"]
    with pytest.raises(ConfigError, match=f"far.xyz': {named} no force of the others, so task=nve can't judge it"):
        run(configured(*words, f"system.path={tmp_path}/far.xyz"), tmp_path)


def test_a_calculator_in_fp32_is_not_called_non_conservative(tmp_path: Path) -> None:
    result = run(configured(*of_calculator("RoundedSprings")), tmp_path)
    assert not result.non_conservative
    held = judged(result)
    assert held["finite_difference_error_ev_per_ang"]
    assert held["circulation_error"]


def test_scaled_forces_are_no_go(tmp_path: Path) -> None:
    result = run(configured(*of_calculator("ScaledForces")), tmp_path)
    assert result.verdict is not None
    assert result.verdict.decision == "NO-GO"
    assert not judged(result)["finite_difference_error_ev_per_ang"]
    report = (tmp_path / "validation_report.txt").read_text()
    assert "finite_difference_error_ev_per_ang is 0." in report
    assert "its forces are not minus the gradient of the energy" in report


def test_what_is_no_gradient_is_called_non_conservative_even_if_it_can_not_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_hot(*arguments: Any) -> None:
        raise TemperatureError("the start did not reach a mean of 300 ± 10 K")

    monkeypatch.setattr(nve, "prepare_start", too_hot)
    result = run(configured(*of_calculator("Swirl")), tmp_path)
    assert undocumented(result) == set()
    assert result.verdict is not None
    assert result.verdict.decision == "NO-GO"
    assert any("did not reach a mean" in reason for reason in result.verdict.reasons)
    assert any(reason.startswith("non-conservative: circulation_error is ") for reason in result.verdict.reasons)
    assert judged(result)["circulation_error"] is False
    report = (tmp_path / "validation_report.txt").read_text()
    assert "The force field is non-conservative" in report
    (line,) = [line for line in report.splitlines() if line.startswith("engine_circulation_error")]
    assert "not judged: the model runs as it is" in line
    with pytest.raises(TemperatureError):  # sound, so the start is to blame
        run(configured(*of_calculator("Springs")), tmp_path)


@pytest.mark.parametrize(("precision", "applies"), [("fp64", True), ("fp32", True), ("bf16_autocast", False)])
def test_an_engine_is_held_against_its_own_energy_where_its_precision_allows(precision: str, applies: bool) -> None:
    words = ["task=nve", "system=water", "device=cpu", "engine=eager", f"precision={precision}", "task.replicas=3"]
    config = configured(*words, "model.checkpoint=student_small")
    subject = prepare_model(config)
    assert subject.checkpoint is not None
    relaxed = molecule("H2O")
    reference = EagerEngine(copy.deepcopy(subject.checkpoint.model).cast(torch.float64), "fp64", subject.device)
    dynamics = Dynamics(subject.engine, [relaxed.copy() for _ in range(3)], 0.5)
    metrics = gradient_metrics(config, subject.engine, reference, dynamics, {"water": relaxed})["water"]
    own = {"engine_circulation_error", "engine_finite_difference_error_ev_per_ang"}
    assert set(metrics) == {"circulation_error", "finite_difference_error_ev_per_ang"} | (own if applies else set())
    assert set(inapplicable_metrics(precision)) == (set() if applies else own)
    excused = inapplicable_metrics(precision)
    gate = Gate("mine", {name: config.gate.criteria[name] for name in {*metrics, *own}})
    assert judge_gate(metrics, gate, inapplicable=excused).decision == "GO"


def test_noise_is_no_go(tmp_path: Path) -> None:
    result = run(configured(*of_calculator("NoisyForces"), "task.duration_ps=0.4"), tmp_path)
    held = judged(result)
    assert not held["momentum_error"]
    assert not held["time_reversal_error_ang"]
    # Noise of 30 meV/Å heats by 3.5 meV/atom/ps in the long run, and makes the energy walk in the short; the percentage
    # of the total energy does not see it.
    assert abs(result.metrics["energy_drift_mev_per_atom_per_ps"]) > 0.1
    assert abs(result.metrics["energy_drift_percent"]) < 1
    assert result.verdict is not None
    assert result.verdict.reasons[0].startswith("ethanol does not relax: 0.")


def test_a_cutoff_without_envelope_is_no_go(tmp_path: Path) -> None:
    result = run(configured(*of_calculator("NoEnvelope")), tmp_path)
    assert result.verdict is not None
    assert result.verdict.decision == "NO-GO"
    held = judged(result)
    assert not held["fluctuation_ratio_dt"]
    assert not held["energy_fluctuation_percent_of_thermal"]
    assert "The energy is not smooth" in (tmp_path / "validation_report.txt").read_text()


class Repulsive(Springs):
    """Throws everything apart once it is away from the minimum."""

    def spoil(self) -> None:
        if np.abs(self.distances - self.lengths).max() > 0.02:
            self.results["forces"] *= -1


def test_what_blows_up_before_its_start_is_no_go_and_no_crash(tmp_path: Path) -> None:
    result = run(configured(*of_calculator("Repulsive"), "task.teacher_check=false"), tmp_path)
    assert result.verdict is not None
    assert result.verdict.decision == "NO-GO"
    assert any("blew up while the start was prepared" in reason for reason in result.verdict.reasons)
    held = judged(result)
    assert held.pop("circulation_error"), "forces of the wrong sign are a gradient too, of another energy"
    assert not any(held.values())


def test_a_no_go_without_a_trajectory_has_a_report_and_names_no_other_file(tmp_path: Path) -> None:
    result = run(configured(*of_calculator("Repulsive")), tmp_path)
    assert result.artifacts == ("validation_report.txt",)
    text = (tmp_path / "validation_report.txt").read_text()
    assert "there is no trajectory" in text
    assert "blew up while the start was prepared" in text
    assert "NO-GO" in text
    assert "frames" not in text
    assert "A bond broke" not in text


STRUCTURES = {
    "flat": "4\nammonia drawn flat\nN 0 0 0\nH 0.94 0 0\nH -0.47 0.814 0\nH -0.47 -0.814 0\n",
    "bohr": "3\n\nO 0 0 0.2254\nH 0 1.4423 -0.9015\nH 0 -1.4423 -0.9015\n",
    "atom": "1\n\nAr 0 0 0\n",
    "whole": '3\nLattice="12 0 0 0 12 0 0 0 12" Properties=species:S:1:pos:R:3 pbc="T T T"\n'
    "O 6.05 6.0 6.0\nH 5.47 6.76 6.0\nH 5.47 5.24 6.0\n",
    "wrapped": '3\nLattice="12 0 0 0 12 0 0 0 12" Properties=species:S:1:pos:R:3 pbc="T T T"\n'
    "O 0.05 6.0 6.0\nH 11.47 6.76 6.0\nH 11.47 5.24 6.0\n",
}


def of_file(directory: Path, name: str, *words: str) -> Config:
    path = directory / f"{name}.extxyz"
    path.write_text(STRUCTURES[name])
    drop = ("system=", "engine=", "precision=", "model.") if "model=ase" in words else "system="
    short = [word for word in QUICK if not word.startswith(drop)]
    return configured(*short, *words, "system=file", f"system.path={path}")


def test_the_thermal_energy_is_measured_from_the_minimum_and_not_from_a_saddle(tmp_path: Path) -> None:
    config = of_file(tmp_path, "flat")
    subject = prepare_model(config)
    _, minima, faults = _minima(config, subject, reference())
    _, expected, _ = _minima(configured(*QUICK, "system=ammonia"), subject, reference())
    assert faults == {"flat": []}
    assert minima["flat"][1] == pytest.approx(expected["ammonia"][1], abs=1e-3)


def reference() -> EagerEngine:
    model = copy.deepcopy(load_checkpoint("student_small").model).cast(torch.float64).requires_grad_(False)
    return EagerEngine(model, "fp64", torch.device("cpu"))


def test_a_structure_that_becomes_another_is_refused_and_is_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bohr\.extxyz' holds no structure near a minimum.*O0–H1 formed \(1\.8"):
        run(of_file(tmp_path, "bohr"), tmp_path)
    with pytest.raises(ConfigError, match=r"atom\.extxyz' is a single atom"):
        run(of_file(tmp_path, "atom", "model=ase"), tmp_path)


@pytest.mark.usefixtures("briefly")
def test_a_molecule_across_the_boundary_is_judged_like_the_whole_one(tmp_path: Path) -> None:
    short = ("task.duration_ps=0.05", "task.settle_ps=0.02", "task.probe_ps=0.03")
    whole, wrapped = (run(of_file(tmp_path, name, *short), tmp_path).metrics for name in ("whole", "wrapped"))
    assert whole["max_bond_change_ang"] > 0.001
    report = (tmp_path / "validation_report.txt").read_text()
    assert "3 atoms with 6 degrees of freedom; E_min is the energy of its minimum in the given cell, which is" in report
    for metric in ("max_bond_change_ang", "max_displacement_ang", "temperature_mean_k"):
        assert wrapped[metric] == pytest.approx(whole[metric], rel=1e-6), metric


def test_a_molecule_in_a_box_that_becomes_another_is_named(tmp_path: Path) -> None:
    """Its hydrogen is too far, and bonds when it relaxes; across the boundary too."""
    far = molecule("H2O", cell=[9, 9, 9], pbc=True)
    far.set_distance(0, 1, 1.8, fix=0)
    far.positions += np.array([4.5, 0.02, 4.5]) - far.positions[0]
    far.wrap()
    far.write(tmp_path / "far.extxyz")
    words = [word for word in QUICK if not word.startswith("system=")]
    with pytest.raises(ConfigError, match=r"far\.extxyz' holds no structure near a minimum.*O0–H1 formed \(1\.8"):
        run(configured(*words, "system=file", f"system.path={tmp_path / 'far.extxyz'}"), tmp_path)


@pytest.mark.usefixtures("briefly")
def test_a_metal_is_judged_by_its_lattice(tmp_path: Path) -> None:
    words = ["task=nve", "model=ase", "model.calculator={_target_:ase.calculators.emt.EMT}", "system=copper"]
    words += ["task.duration_ps=0.2", "task.settle_ps=0.1", "task.probe_ps=0.2"]
    result = run_here(tmp_path, *words, "gate=strict")
    assert not undocumented(result)
    report = (tmp_path / "validation_report.txt").read_text()
    assert "0.2 ps of 0.2 ps (usual are 400 ps); 2 fs steps, because neither hydrogen nor" in report
    assert result.verdict is not None
    by_metric = {criterion.metric: criterion for criterion in result.verdict.criteria}
    lattice, bonds = by_metric["lindemann_ratio"], by_metric["max_bond_change_ang"]
    assert lattice.held
    assert lattice.value is not None
    assert 0.02 < lattice.value < 0.1
    assert bonds.inapplicable == "the system has no covalent bonds, and lindemann_ratio judges it"
    absent = {metric for metric, each in by_metric.items() if each.value is None and not each.inapplicable}
    assert absent == {"energy_walk_percent_of_thermal"}, "one start says nothing of it"
    assert result.tags["timestep.usual_fs"] == "2"
    (recorded,) = load_ensembles(tmp_path / "trajectory_data.npz")
    assert recorded.metrics(300)["lindemann_ratio"] == lattice.value


def test_a_box_of_water_is_relaxed_in_its_cell_and_judged_by_its_bonds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "REVERSED_STEPS", 50)
    monkeypatch.setattr(checks, "MAX_DIFFERENCED_COORDINATES", 6)
    words = [word for word in of_calculator("BoxOfSprings") if not word.startswith("system")]
    result = run(configured(*words, "system=water_box", "system.n_molecules=8", "task.replicas=2"), tmp_path)
    report = (tmp_path / "validation_report.txt").read_text()
    assert "24 atoms with 69 degrees of freedom; E_min is the energy of its minimum in the given cell, which" in report
    held = judged(result)
    assert held["max_bond_change_ang"]
    assert held["finite_difference_error_ev_per_ang"]
    assert "lindemann_ratio" not in held
    assert "rotation_percent_of_kinetic" not in held
    assert result.verdict is not None
    assert result.verdict.decision in ("GO", "UNDECIDED"), result.verdict.reasons
    (recorded,) = load_ensembles(tmp_path / "trajectory_data.npz")
    given = BoxOfSprings.start.copy()
    given.calc = BoxOfSprings()
    assert recorded.minimum_energy < given.get_potential_energy() - 0.1, "bonds of 0.97 Å want 1 Å"
    kinetic, temperature = recorded.kinetic[0, 0], recorded.temperature[0, 0]
    assert temperature == pytest.approx(2 * kinetic / (69 * units.kB))


@pytest.mark.usefixtures("briefly")
def test_the_verdict_is_safe_before_a_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[RunResult] = []

    def full(*arguments: Any, **keywords: Any) -> None:
        assert kept, "the verdict comes first"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nve, "plot_nve", full)
    monkeypatch.setattr(nve_files, "write", full)
    result = run(configured(*QUICK, "task.duration_ps=0.1"), tmp_path, kept.append)
    (first,) = kept
    assert first.verdict == result.verdict
    assert first.metrics == result.metrics
    assert result.artifacts == ("validation_report.txt", "trajectory_data.npz")
    assert "quick_md_validation.png: OSError" in result.tags["files.not_written"]
    assert "frames_water.extxyz: OSError" in result.tags["files.not_written"]


def test_a_mean_below_the_minimum_is_a_fault_and_no_percentage() -> None:
    ones, moving = np.ones((20, 2)), np.ones((20, 2, 3, 3))
    trajectory = Trajectory(
        np.arange(20), np.arange(20.0), -10 * ones, ones, ones, ones, ones, ones, moving, moving, None
    )
    high, low = (Ensemble.of(trajectory, 0, 2, "water", molecule("H2O"), minimum, True) for minimum in (-8.5, -9.5))
    assert len(high.below_minimum()) == 2
    assert low.below_minimum() == []
    metrics = high.metrics(300)
    assert not [metric for metric in metrics if metric.endswith("of_thermal")]


def test_an_engine_that_computes_something_else_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = prepare_model

    def faulty(config: Config) -> ModelUnderTest:
        subject = sound(config)
        assert subject.checkpoint is not None
        engine = Faulty(subject.checkpoint.model.requires_grad_(False), "fp32", subject.device)
        engine.fault = lambda p: type(p)(p.energy, 1.02 * p.forces)
        return ModelUnderTest(engine, subject.checkpoint, subject.device)

    monkeypatch.setattr(nve, "prepare_model", faulty)
    with pytest.raises(EngineError, match=r"forces are 0\.02 off eager FP64"):
        run(configured(*SHORT), tmp_path)


def energies(result: RunResult) -> np.ndarray:
    return np.array(result.series["total_energy_ev"])[:, 1]


@pytest.mark.usefixtures("briefly")
@pytest.mark.slow
def test_both_integrators_give_one_trajectory_and_its_files(tmp_path: Path) -> None:
    words = [*SHORT, "gate=off", "precision=fp64", "task.systems=[water,ammonia]", "task.temperature_k=50"]
    words += ["task.duration_ps=0.05", "task.settle_ps=0.02", "task.probe_ps=0.02"]
    found: dict[str, Any] = {}
    for name in ("verlet", "ase"):
        directory = tmp_path / name
        directory.mkdir()
        result = run(configured(*words, f"task.integrator={name}"), directory)
        found[name] = energies(result)
        assert "frames_water.extxyz" in result.artifacts
        frames = read(directory / "frames_ammonia.extxyz", ":")
        assert len(frames) == 11
        assert frames[3].get_chemical_formula() == "H3N"
        with np.load(directory / "trajectory_data.npz") as data:
            assert frames[3].get_potential_energy() == pytest.approx(data["potential_energy_ev"][3, 1], abs=1e-6)
    np.testing.assert_allclose(found["verlet"], found["ase"], rtol=0, atol=1e-9)


class KilledError(RuntimeError):
    pass


QUICK = [*SHORT, "gate=off", "system=water", "task.settle_ps=0.02", "task.probe_ps=0.02", "task.temperature_k=50"]


@pytest.mark.usefixtures("briefly")
@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*QUICK, "task.duration_ps=0.15", "task.replicas=2"]
    whole, killed, resumed = (tmp_path / name for name in ("whole", "killed", "resumed"))
    for directory in (whole, killed, resumed):
        directory.mkdir()
    run(configured(*words), whole)

    saved = save_state
    monkeypatch.setattr(nve, "KEEP_EVERY_S", 0.0)

    def save_and_die(*arguments: Any) -> None:
        saved(*arguments)
        if arguments[1].state.step >= 120:
            raise KilledError

    monkeypatch.setattr(nve, "save_state", save_and_die)
    with pytest.raises(KilledError):
        run(configured(*words), killed)
    monkeypatch.setattr(nve, "save_state", saved)
    result = run(configured(*words, f"task.resume={killed}"), resumed)
    with np.load(whole / "trajectory_data.npz") as expected, np.load(resumed / "trajectory_data.npz") as found:
        assert len(found["steps"]) == 31
        for name in expected.files:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert not (resumed / "state.npz").is_file()
    assert result.metrics["steps_per_s"] > 0
    with np.load(resumed / "trajectory_data.npz") as found:
        total = found["potential_energy_ev"] + found["kinetic_energy_ev"]
        slopes = [1e3 / 3 * np.polyfit(found["times_ps"], of, 1)[0] for of in total.T]
    drift, mean = (f"energy_drift{which}_mev_per_atom_per_ps" for which in ("", "_mean"))
    assert result.metrics[drift] == pytest.approx(max(slopes, key=abs))
    assert result.metrics[mean] == pytest.approx(np.mean(slopes))
    assert result.metrics[f"{mean}_ci_low"] < result.metrics[mean] < result.metrics[f"{mean}_ci_high"]

    with pytest.raises(ConfigError, match=r"is at 0\.\d+ ps, beyond task\.duration_ps=0\.05"):
        run(configured(*words, f"task.resume={killed}", "task.duration_ps=0.05"), resumed)
    with pytest.raises(ConfigError, match=r"is another run: timestep_fs was 0\.5 and is 0\.25"):
        run(configured(*words, f"task.resume={killed}", "task.timestep_fs=0.25"), resumed)
    with pytest.raises(ConfigError, match=r"is another run: force field was [0-9a-f]+ and is [0-9a-f]+"):
        run(configured(*words, f"task.resume={killed}", "model.checkpoint=student"), resumed)
    with pytest.raises(ConfigError, match=r"is another run: systems was .*H2O [0-9a-f]{16}.* and is .*H3N"):
        run(configured(*words, f"task.resume={killed}", "system=ammonia"), resumed)
    (killed / "state.npz").write_bytes((killed / "state.npz").read_bytes()[:3000])
    with pytest.raises(ConfigError, match=r"state\.npz is damaged"):
        run(configured(*words, f"task.resume={killed}"), resumed)
    with pytest.raises(ConfigError, match=r"there is no state\.npz"):
        run(configured(*words, f"task.resume={whole}"), resumed)


@pytest.mark.usefixtures("briefly")
def test_the_teacher_is_asked_along_the_way(tmp_path: Path) -> None:
    words = ["gate=strict", "task.duration_ps=0.1", "task.teacher_check=true"]
    result = run(configured(*QUICK, *words), tmp_path)
    assert undocumented(result) == set()
    metrics = result.metrics
    name = "teacher_energy_drift_mev_per_atom_per_ps"
    assert metrics[f"{name}_ci_low"] <= metrics[name] <= metrics[f"{name}_ci_high"]
    assert name in (tmp_path / "validation_report.txt").read_text()
    assert metrics["teacher_energy_drift_mean_mev_per_atom_per_ps"] == metrics[name], "of one start they are the same"


@pytest.mark.usefixtures("briefly")
def test_the_teacher_is_not_asked_about_what_blew_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = prepare_start

    def then_break(*args: Any) -> Any:
        state = prepare(*args)
        monkeypatch.setattr(verlet, "BROKEN_BOND_ANG", 0.0)
        return state

    monkeypatch.setattr(nve, "prepare_start", then_break)
    result = run(configured(*QUICK, "task.duration_ps=0.1", "task.teacher_check=true"), tmp_path)
    assert result.verdict is not None
    assert result.verdict.decision == "NO-GO"
    assert "broke apart at step" in result.verdict.reasons[0]
    assert "teacher_energy_drift_mev_per_atom_per_ps" not in result.metrics


def test_the_trend_of_the_teacher_is_a_mean_over_the_starts() -> None:
    slopes = [1.0, 2.0, 6.0]
    metrics = nve._teacher_metrics([Estimate(slope, slope - 1, slope + 1) for slope in slopes])
    mean, worst = (f"teacher_energy_drift{which}_mev_per_atom_per_ps" for which in ("_mean", ""))
    assert metrics[worst] == 6.0
    assert metrics[mean] == pytest.approx(3.0)
    assert metrics[f"{mean}_ci_low"] < 1.0, "three starts that differ so much say little"


def test_the_trend_of_the_teacher_is_measured() -> None:
    """A teacher like the student, but for an energy that climbs by 3 meV from each frame to the next."""
    model = copy.deepcopy(load_checkpoint("student_small").model).cast(torch.float64).requires_grad_(False)
    engine, climbing = EagerEngine(model, "fp64", torch.device("cpu")), Faulty(model, "fp64", torch.device("cpu"))
    dynamics = Dynamics(engine, [rattled("H2O", 1)], timestep_fs=0.5)
    state = dynamics.state(dynamics.batch.positions, torch.zeros_like(dynamics.batch.positions))
    trajectory = dynamics.run(state, 400, 1)
    climbing.fault = lambda p: type(p)(p.energy + 0.003 * torch.arange(len(p.energy)), p.forces)
    (own,), (other,) = (teacher_drift(teacher, dynamics, trajectory) for teacher in (engine, climbing))
    assert abs(own.value) < 0.1
    between_frames_ps = 3 * 0.5e-3  # 401 frames are thinned to 134
    assert other.value - own.value == pytest.approx(3 / between_frames_ps / 3, rel=1e-6)
