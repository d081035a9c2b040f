"""Options of tasks."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlff_exp.config import (
    DAY_S,
    INTEGRATORS,
    LIMITS,
    MANY,
    MAX_RECORDED_FRAMES,
    MAX_STEPS,
    MAX_SYSTEMS,
    YEAR_S,
    ConfigError,
    Limits,
    choose,
    choose_molecule,
    is_file,
    limited,
    shown,
    within_limits,
)

STRESS = ("auto", "required", "never")


@dataclass
class InferenceTask:
    """Time one engine on one shape of batch, alternately with its baselines.

    Attributes:
        min_time_s: measure for at least this long.
        min_calls: and at least this many calls; baselines get a tenth.
        max_time_s: for about this long at most, even if that is fewer calls; baselines get a tenth.
        baselines: other engines to time alternately with it at the same precision, as speedup_vs_<engine>.
        stress: whether a call computes the stress as well: ``auto``, where the engine gives it and every system is
            periodic in all three directions; ``required``, or the run is refused; ``never``.
    """

    name: str = "inference"
    min_time_s: float = limited(2.0, most=DAY_S)
    min_calls: int = limited(1000, most=10_000_000)
    max_time_s: float = limited(60.0, most=DAY_S)
    baselines: list[str] = field(default_factory=list)
    stress: str = "auto"

    def __post_init__(self) -> None:
        within_limits(self, "task.")
        choose("task.stress", self.stress, STRESS)
        if self.max_time_s < self.min_time_s:
            raise ConfigError(f"task.max_time_s={self.max_time_s:g} is less than task.min_time_s={self.min_time_s:g}")
        if len(set(self.baselines)) < len(self.baselines):
            raise ConfigError(f"task.baselines={list(self.baselines)} names an engine twice")

    def copies(self, batch_size: int) -> tuple[str, int]:
        """Return the key that says how often the system is in a batch, and that number."""
        return "batch_size", batch_size


@dataclass
class NveTask:
    """Molecular dynamics at constant energy, judged by a gate.

    Attributes:
        duration_ps: length of the recorded trajectory.
        timestep_fs: timestep of the integrator. In conf/task/nve.yaml it depends on what moves, see `usual_timestep`.
        temperature_k: temperature at which the start is prepared.
        record_every: steps between recorded frames.
        systems: names of molecules that move in one batch and are judged one by one; if empty, ``system`` is used.
        replicas: starts of each system with different velocities; all of them move in one batch.
        settle_ps: NVE at twice the temperature before the start, so that energy spreads over all modes.
        probe_ps: NVE that measures the mean temperature of the start, which is then corrected.
        integrator: verlet (our own) or ase (the same steps by ASE, slower).
        resume: directory or MLflow run id of a run that did not finish; the new run continues from its last state.
        teacher_check: evaluate the teacher along the trajectory and report the trend of its energy.
    """

    name: str = "nve"
    duration_ps: float = limited(100.0, most=1_000_000)
    timestep_fs: float = limited(0.5, most=100)
    temperature_k: float = limited(300.0, most=100_000)
    record_every: int = limited(10, most=MAX_STEPS)
    systems: list[str] = field(default_factory=list)
    replicas: int = limited(1, most=MAX_SYSTEMS)
    settle_ps: float = limited(1.0, most=1_000_000)
    probe_ps: float = limited(2.0, most=1_000_000)
    integrator: str = "verlet"
    resume: str | None = None
    teacher_check: bool = False

    def __post_init__(self) -> None:
        choose("task.integrator", self.integrator, INTEGRATORS)
        within_limits(self, "task.")
        for key in ("duration_ps", "settle_ps", "probe_ps"):
            steps = getattr(self, key) * 1000 / self.timestep_fs  # infinite where the timestep is tiny
            if steps > MAX_STEPS:
                raise ConfigError(
                    f"task.{key}={getattr(self, key)} at task.timestep_fs={self.timestep_fs} takes {steps:.3g} steps; "
                    f"at most {MAX_STEPS:,} are possible"
                )
            if steps <= 0.5:
                raise ConfigError(
                    f"task.{key}={getattr(self, key)} is shorter than a step of task.timestep_fs={self.timestep_fs}"
                )
        if self.resume is not None and not self.resume.strip():
            raise ConfigError(f"task.resume={self.resume!r} must be the directory or the MLflow id of a run")
        for name in self.systems:
            choose_molecule("task.systems", name)
        if len(set(self.systems)) < len(self.systems):
            raise ConfigError(f"task.systems={list(self.systems)} names a molecule twice: use task.replicas")
        if self.n_steps < 10 * self.record_every:
            raise ConfigError(
                f"task.duration_ps={self.duration_ps} holds fewer than ten frames at "
                f"task.timestep_fs={self.timestep_fs} and task.record_every={self.record_every}: "
                "lengthen it, or record more often"
            )
        if self.n_frames > MAX_RECORDED_FRAMES:
            raise ConfigError(
                f"task.record_every={self.record_every}: {self.n_trajectories:,} trajectories of {self.n_steps:,} "
                f"steps leave {self.n_frames:,} frames; at most {MAX_RECORDED_FRAMES:,} are kept: raise "
                "task.record_every"
            )

    def copies(self, batch_size: int) -> tuple[str, int]:
        """Return the key that says how often the system is in a batch, and that number."""
        return "task.replicas", 0 if self.systems else self.replicas

    @property
    def n_steps(self) -> int:
        """Steps of the recorded trajectory."""
        return round(self.duration_ps * 1000 / self.timestep_fs)

    @property
    def n_trajectories(self) -> int:
        """Number of trajectories."""
        return self.replicas * max(1, len(self.systems))

    @property
    def n_frames(self) -> int:
        """Number of recorded frames of all trajectories."""
        return self.n_trajectories * (self.n_steps // self.record_every + 1)


@dataclass
class DistillTask:
    """Sample molecules, label them with the teacher and train a student; goes on where an earlier run stopped.

    Attributes:
        directory: directory that keeps labels and states of training between runs.
        molecules: number of molecules to train on; all of the list if null.
        analogues: number of their analogues to train on; all if null.
        validation_molecules: number of molecules with unseen scaffolds that measure the errors.
        normal_modes, rattled, stretched, md_share, md_temperatures_k, md_frames, md_stride, dimers, water_clusters:
            see `sampling.Sampling`.
        rounds: rounds of active learning, which label frames of the student's own hot dynamics.
        explored_frames, explored_stride: frames of each trajectory, and steps of 1 fs between them.
        explored_kept: frames that a round adds: first those where dynamics broke, then those with the largest errors.
        n_features, n_interactions: size of the student.
        steps: steps of the last training.
        round_steps: steps of each training before a round of active learning.
        atoms_per_step, learning_rate, energy_weight, ema_decay: see `training.Schedule`.
        data_fraction: share of the molecules to train on, for a learning curve.
        budget_s: stop training after this long; run again to go on.
        workers: number of processes that label.
    """

    name: str = "distill"
    directory: str = "outputs/distill"
    molecules: int | None = limited(None, most=MANY)
    analogues: int | None = limited(None, least=0, most=MANY)
    validation_molecules: int = limited(200, most=MANY)
    normal_modes: int = limited(16, least=0, most=1000)
    rattled: int = limited(5, least=0, most=1000)
    stretched: int = limited(4, least=0, most=1000)
    md_share: float = limited(0.1, least=0, most=1)
    md_temperatures_k: list[float] = field(
        default_factory=lambda: [500.0, 1000.0, 1500.0], metadata={LIMITS: Limits(100_000)}
    )
    md_frames: int = limited(7, most=10_000)
    md_stride: int = limited(20, most=MANY)
    dimers: int = limited(3000, least=0, most=MANY)
    water_clusters: int = limited(24, least=0, most=MANY)
    rounds: int = limited(2, least=0, most=100)
    explored_frames: int = limited(3, most=10_000)
    explored_stride: int = limited(40, most=MANY)
    explored_kept: int = limited(14_000, most=MANY)
    n_features: int = limited(128, most=4096)
    n_interactions: int = limited(3, most=64)
    steps: int = limited(47_000, most=MAX_STEPS)
    round_steps: int = limited(12_000, most=MAX_STEPS)
    atoms_per_step: int = limited(1024, most=MANY)
    learning_rate: float = limited(1e-3, most=1)
    energy_weight: float = limited(10.0, most=1_000_000)
    ema_decay: float = limited(0.9995, least=0, most=1)
    data_fraction: float = limited(1.0, most=1)
    budget_s: float = limited(540.0, most=YEAR_S)
    workers: int = limited(2, most=1024)

    def __post_init__(self) -> None:
        within_limits(self, "task.")
        if not self.directory:
            raise ConfigError("task.directory='' must name a directory")
        if not self.md_temperatures_k:
            raise ConfigError("task.md_temperatures_k=[] must hold a temperature")


@dataclass
class AccuracyTask:
    """Errors of an engine and precision over a labelled set.

    Attributes:
        dataset: "validation", the set inside the package, or the path of another.
    """

    name: str = "accuracy"
    dataset: str = "validation"

    def __post_init__(self) -> None:
        if self.dataset != "validation" and not is_file(self.dataset):
            raise ConfigError(f"task.dataset={shown(repr(self.dataset))} is neither a file nor validation")
