"""The configuration as dataclasses; every bad value is refused here, before any work.

Nothing in this module imports torch, so that a typo is reported at once.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING as MISSING_DEFAULT
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlff_exp import masking, naming
from mlff_exp.checked import LIMITS, Limits, did_you_mean, is_file, limited, shown, within_limits
from mlff_exp.checked import ConfigError as ConfigError
from mlff_exp.checked import UnavailableError as UnavailableError
from mlff_exp.checked import choose as choose
from mlff_exp.checked import plain as plain
from mlff_exp.checked import positive as positive
from mlff_exp.masking import masked as masked
from mlff_exp.recorded import NATIVE, UNUSED, what_runs

Precision = Literal["fp64", "fp32", "tf32", "fp16_autocast", "bf16_autocast"]
EngineName = Literal["eager", "compile", "cuda_graph", "fused"]
CompileMode = Literal["default", "reduce-overhead", "max-autotune"]
TrackingName = Literal["local", "server", "offline"]
Integrator = Literal["verlet", "ase"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FUSED_PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "fp16_autocast")  # of the kernels written by hand
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
COMPILE_MODES: tuple[CompileMode, ...] = get_args(CompileMode)
TRACKING_NAMES: tuple[TrackingName, ...] = get_args(TrackingName)
INTEGRATORS: tuple[Integrator, ...] = get_args(Integrator)

# More than any machine takes, so that a slip of the finger is refused before it takes all of one.
MAX_SYSTEMS = 1_048_576  # in a batch
MAX_ATOMS = 16_777_216  # in a batch
MAX_STEPS = 1_000_000_000
MAX_RECORDS = 100_000_000  # of all trajectories of a run
MANY = 10_000_000
DAY_S = 86_400.0
YEAR_S = 365 * DAY_S

# Names in ASE's g2 collection.
MOLECULES = {
    "benzene": "C6H6",
    "ethanol": "CH3CH2OH",
    "water": "H2O",
    "carbon_dioxide": "CO2",
    "ammonia": "NH3",
    "methane": "CH4",
    "acetamide": "CH3CONH2",
    "pyridine": "C5H5N",
}
# Relaxed molecules of the shipped validation set, which no student was trained on: unseen_0, unseen_1, …
N_UNSEEN = 200
UNSEEN = "unseen_"
USUAL_GATE = "strict"  # as in conf/config.yaml


DEVICE = r"auto|cpu|cuda(:[0-9]{1,4})?"
CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"


def shipped_checkpoints() -> tuple[str, ...]:
    """Names of the checkpoints inside the package."""
    return tuple(sorted(path.stem for path in CHECKPOINTS.glob("*.safetensors")))


@dataclass
class InferenceTask:
    """Time one engine on one shape of batch, its baselines beside it.

    Attributes:
        min_time_s: measure for at least this long.
        min_calls: and at least this many calls; baselines get a tenth.
        beside: other engines to time beside it at the same precision, as speedup_vs_<engine>.
    """

    name: str = "inference"
    min_time_s: float = limited(2.0, most=DAY_S)
    min_calls: int = limited(1000, most=10_000_000)
    beside: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        within_limits(self, "task.")
        for engine in self.beside:
            choose("task.beside", engine, ENGINES)
        if len(set(self.beside)) < len(self.beside):
            raise ConfigError(f"task.beside={list(self.beside)} names an engine twice")


@dataclass
class NveTask:
    """Molecular dynamics at constant energy, judged by a gate.

    Attributes:
        duration_ps: of the recorded trajectory.
        timestep_fs: of velocity Verlet.
        temperature_k: the start is prepared at.
        record_every: steps between records.
        systems: names of molecules that move side by side, each judged; those of ``system`` if empty.
        replicas: trajectories of each system with different seeds; all of them are one batch.
        settle_ps: NVE at twice the temperature before the start, so that energy spreads over all modes.
        probe_ps: NVE that measures the mean temperature of the start, which is then corrected.
        integrator: verlet, our own, or ase, which is slower and the same.
        resume: directory or MLflow run id of a run that did not finish; goes on from its last state.
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
        for name in self.systems:
            _choose_molecule("task.systems", name)
        if len(set(self.systems)) < len(self.systems):
            raise ConfigError(f"task.systems={list(self.systems)} names a molecule twice: use task.replicas")
        if self.n_steps < 10 * self.record_every:
            raise ConfigError(
                f"task.duration_ps={self.duration_ps} holds fewer than ten records at "
                f"task.timestep_fs={self.timestep_fs} and task.record_every={self.record_every}: "
                "lengthen it, or record more often"
            )
        if self.n_records > MAX_RECORDS:
            raise ConfigError(
                f"task.record_every={self.record_every}: {self.n_trajectories:,} trajectories of {self.n_steps:,} "
                f"steps leave {self.n_records:,} records; at most {MAX_RECORDS:,} are kept: record less often"
            )

    @property
    def n_steps(self) -> int:
        """Steps of the recorded trajectory."""
        return round(self.duration_ps * 1000 / self.timestep_fs)

    @property
    def n_trajectories(self) -> int:
        """Trajectories side by side."""
        return self.replicas * max(1, len(self.systems))

    @property
    def n_records(self) -> int:
        """Records of all trajectories."""
        return self.n_trajectories * (self.n_steps // self.record_every + 1)


@dataclass
class DistillTask:
    """Sample molecules, label them with the teacher and train a student; goes on where an earlier run stopped.

    Attributes:
        directory: where labels and states of training are kept between runs.
        molecules: how many to train on; all of the list if null.
        analogues: how many of their analogues besides; all if null.
        validation_molecules: how many of those with unseen scaffolds measure the errors.
        normal_modes, rattled, stretched, md_share, md_temperatures_k, md_frames, md_stride, dimers, water_clusters:
            see `sampling.Sampling`.
        rounds: of active learning: the student's hot dynamics, relabelled.
        explored_frames, explored_stride: frames of each trajectory, and steps of 1 fs between them.
        explored_kept: frames that a round adds: those where dynamics broke, then those that the student was worst at.
        n_features, n_interactions: of the student.
        steps: of the last training.
        round_steps: of those before a round of active learning.
        atoms_per_step, learning_rate, energy_weight, ema_decay: see `training.Schedule`.
        data_fraction: of the molecules that are trained on, for a learning curve.
        budget_s: stop training after this long; run again to go on.
        workers: processes that label.
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


TASKS: dict[str, type] = {
    "inference": InferenceTask,
    "accuracy": AccuracyTask,
    "nve": NveTask,
    "distill": DistillTask,
}


@dataclass
class StudentModel:
    """A force field of our architecture, or of the predecessor's.

    Attributes:
        checkpoint: name of a shipped checkpoint, or a path.
    """

    name: str = "student"
    checkpoint: str = "student"

    def __post_init__(self) -> None:
        if self.checkpoint not in shipped_checkpoints() and not is_file(self.checkpoint):
            raise ConfigError(
                f"model.checkpoint={shown(repr(self.checkpoint))} is neither a file nor one of: "
                f"{', '.join(shipped_checkpoints())}"
            )


@dataclass
class AseModel:
    """Any ASE calculator, as it is: it loops over a batch and takes no engine and no precision.

    Attributes:
        calculator: its class or function as ``_target_``, and the arguments.
    """

    name: str = "ase"
    calculator: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "_target_" not in self.calculator:
            raise ConfigError("model.calculator needs a _target_, for example mlff_exp.labelling.teacher_calculator")


def _choose_molecule(key: str, name: str) -> None:
    number = name.removeprefix(UNSEEN)
    # As it would be written: names stand in labels.
    if number == name or number not in map(str, range(N_UNSEEN)):
        choose(key, name, tuple(MOLECULES), f"{UNSEEN}0 … {UNSEEN}{N_UNSEEN - 1}")


@dataclass
class MoleculeSystem:
    """A molecule by name, a common one or one of the validation set."""

    name: str = MISSING

    def __post_init__(self) -> None:
        _choose_molecule("system.name", self.name)


@dataclass
class FileSystem:
    """Anything that ASE reads; constraints in it are left out, so that all atoms move.

    Attributes:
        name: in labels and in names of files; "file" for that of the file itself.
        path: of the file.
        index: of the frame in it, from 0 or from the end by -1; "all", or a slice as "0:10:2", for several systems.
        ignore_charge: leave out charge, spin and magnetic moments, and evaluate the neutral singlet.
    """

    name: str = "file"
    path: str = MISSING
    index: int | str = -1
    ignore_charge: bool = False

    def __post_init__(self) -> None:
        if self.name == "file":
            self.name = re.sub(r"[^A-Za-z0-9_-]", "_", Path(self.path).stem) or self.name
        plain("system.name", self.name)
        if not is_file(self.path):
            raise ConfigError(f"system.path={shown(repr(self.path))} is not a file")
        _ = self.chosen

    @property
    def chosen(self) -> int | slice:
        """The frame, or those of several.

        Raises:
            ConfigError: neither a number, a slice nor "all".
        """
        text = str(self.index)
        if text == "all":
            return slice(None)
        parts = text.split(":")
        try:
            numbers = [int(part) if part.strip() else None for part in parts]
        except ValueError:
            numbers = []
        if len(numbers) == 1 and numbers[0] is not None:
            return numbers[0]
        if len(numbers) not in (2, 3) or numbers[2:] == [0]:
            raise ConfigError(f"system.index={text!r} is neither a frame's number, a slice as 0:10:2, nor all")
        return slice(*numbers)


@dataclass
class WaterBox:
    """A periodic cube of water at 1 g/cm³.

    Attributes:
        n_molecules: a cube of a whole number: 8, 27, 64, 125, …
    """

    name: str = "water_box"
    n_molecules: int = limited(64, most=1_000_000)

    def __post_init__(self) -> None:
        within_limits(self, "system.")
        plain("system.name", self.name)
        if round(self.n_molecules ** (1 / 3)) ** 3 != self.n_molecules:
            raise ConfigError(
                f"system.n_molecules={self.n_molecules} is not the cube of a whole number: 8, 27, 64, 125"
            )


System = MoleculeSystem | FileSystem | WaterBox


@dataclass
class EagerEngine:
    """Plain PyTorch."""

    name: str = "eager"


@dataclass
class CompileEngine:
    """Energy and forces as one graph through `torch.compile`.

    Attributes:
        mode: of `torch.compile`.
    """

    name: str = "compile"
    mode: str = "reduce-overhead"

    def __post_init__(self) -> None:
        choose("engine.mode", self.mode, COMPILE_MODES)


@dataclass
class CudaGraphEngine:
    """The compiled graph captured in one CUDA graph with static buffers."""

    name: str = "cuda_graph"


@dataclass
class FusedEngine:
    """Energy and forces in Triton kernels written by hand, captured in one CUDA graph."""

    name: str = "fused"


@dataclass
class NativeEngine:
    """That of an ASE calculator, which runs as it is; it is not to be chosen."""

    name: str = NATIVE


ENGINE_TYPES: dict[str, type] = {one.name: one for one in (EagerEngine, CompileEngine, CudaGraphEngine, FusedEngine)}


@dataclass
class PrecisionConfig:
    """Arithmetic of the network; geometry, sums and the integrator stay FP32 or FP64."""

    name: str = MISSING

    def __post_init__(self) -> None:
        choose("precision.name", self.name, PRECISIONS)


@dataclass
class NativePrecision(PrecisionConfig):
    """That of an ASE calculator, whatever it is; it is not to be chosen."""

    name: str = NATIVE

    def __post_init__(self) -> None:
        """There is no choice to check."""


@dataclass
class Limit:
    """The interval that a metric's value must lie in; an absent bound does not limit."""

    min: float | None = None
    max: float | None = None


def _check_limit(key: str, limit: Limit) -> None:
    for end, value in (("min", limit.min), ("max", limit.max)):
        if value is not None and not math.isfinite(value):
            raise ConfigError(f"{key}.{end}={value} must be a finite number, or null for no limit")
    if limit.min is not None and limit.max is not None and limit.min > limit.max:
        raise ConfigError(f"{key}: nothing lies between min={limit.min:g} and max={limit.max:g}")


@dataclass
class Gate:
    """What an NVE run must fulfil.

    Attributes:
        criteria: limits by metric name; none if the name is off.
    """

    name: str = "off"
    criteria: dict[str, Limit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plain("gate.name", self.name)
        if (self.name == "off") == bool(self.criteria):
            found = ", ".join(self.criteria) or "none"
            raise ConfigError(f"gate.name={self.name!r} with criteria: {found}; off has none, and says so by gate=off")
        for metric, limit in self.criteria.items():
            _check_limit(f"gate.criteria.{metric}", limit)


@dataclass
class Tracking:
    """Where results go besides the run's own directory.

    Attributes:
        name: local (SQLite), server (MLFLOW_TRACKING_URI) or offline (nowhere, until `mlff-exp-sync`).
        directory: of the embedded store.
        experiment: name in MLflow.
    """

    name: str = "local"
    directory: str = "mlruns"
    experiment: str = "mlff_exp"

    def __post_init__(self) -> None:
        choose("tracking.name", self.name, TRACKING_NAMES)
        for key in ("directory", "experiment"):
            if not getattr(self, key).strip():
                raise ConfigError(f"tracking.{key}={getattr(self, key)!r} must not be empty")


@dataclass
class Stage:
    """One product of overrides within an experiment.

    Attributes:
        name: shown in progress and report.
        overrides: as on the command line; values separated by commas are swept.
        gate: stop the experiment here if a verdict is NO-GO.
    """

    name: str = MISSING
    overrides: list[str] = field(default_factory=list)
    gate: bool = False


@dataclass
class Sweep:
    """The multirun that a run belongs to.

    Attributes:
        name: of the experiment file, or "sweep".
        stages: of an experiment; empty for a plain multirun.
        parameters: numbers that the stages of an experiment refer to, so that all of it can be made smaller or larger.
        resume: directory or MLflow run id of a sweep that did not finish; only what is missing runs.
        budget_s: start no more runs after so many seconds; the rest is left to `resume`.
        compile_ahead: before the first run, fill Inductor's cache on all cores; see `ahead`.
        id: of the parent run; set by the sweeper.
        gate_decision: whether the weights have passed the gate; set by the sweeper where that is asked.
        varied: the keys that tell the jobs apart where their labels do not; set by the sweeper. A run records their
            values, or, by itself, what is not as usual.
    """

    name: str = "sweep"
    stages: list[Stage] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    resume: str | None = None
    budget_s: float | None = limited(None, most=YEAR_S)
    compile_ahead: bool = False
    id: str | None = None
    gate_decision: str = "no_verdict"
    varied: list[str] | None = None

    def __post_init__(self) -> None:
        plain("sweep.name", self.name)
        within_limits(self, "sweep.")


@dataclass
class Config:
    """Everything that determines a run. The groups hold the dataclass of the option that was chosen.

    Attributes:
        trust: packages and features of Hydra that a configuration may use; the command line alone can set it. The
            command adds the packages that were named there. See `trust`.
    """

    task: Any = MISSING
    model: Any = MISSING
    system: Any = MISSING
    engine: Any = MISSING
    precision: PrecisionConfig = MISSING
    gate: Gate = field(default_factory=Gate)
    tracking: Tracking = field(default_factory=Tracking)
    sweep: Sweep = field(default_factory=Sweep)
    gate_required: bool = False
    trust: list[str] = field(default_factory=list)
    batch_size: int = limited(1, most=MAX_SYSTEMS)
    device: str = "auto"
    seed: int = limited(0, least=0, most=2**32 - 1)
    timeout_s: float = limited(3600.0, most=YEAR_S)
    cold_compile: bool = False

    def __post_init__(self) -> None:
        for group in ("task", "model", "engine"):
            chosen: Any = getattr(self, group)
            own = getattr(type(chosen), "name", None)
            if own is not None and chosen.name != own:
                raise ConfigError(f"{group}.name={chosen.name!r} chooses nothing: say {group}=… instead")
        within_limits(self)
        if not re.fullmatch(DEVICE, self.device):
            choose("device", self.device, ("auto", "cpu", "cuda"), "cuda:<number>")
        self._refuse_what_cannot_fit()
        if isinstance(self.model, AseModel):
            self.engine, self.precision = NativeEngine(), NativePrecision()

    def _refuse_what_cannot_fit(self) -> None:
        """Refuse more atoms in a batch than there can be."""
        task = self.task
        if isinstance(self.system, WaterBox) and isinstance(task, InferenceTask | NveTask):
            key, n_boxes = "batch_size", self.batch_size
            if isinstance(task, NveTask):
                key, n_boxes = "task.replicas", 0 if task.systems else task.replicas
            n_atoms = 3 * self.system.n_molecules * n_boxes
            if n_atoms > MAX_ATOMS:
                raise ConfigError(
                    f"{key}={n_boxes} of system.n_molecules={self.system.n_molecules} are {n_atoms:,} atoms; "
                    f"a batch holds at most {MAX_ATOMS:,}"
                )

    @property
    def precisions(self) -> tuple[str, ...]:
        """What the engine runs at: its own precision, and for a baseline beside what is timed FP32."""
        own = self.precision.name
        return (own, "fp32") if self.task.name == "inference" and own != "fp32" else (own,)

    def on_this_machine(self) -> Config:
        """Resolve ``device=auto`` and check that the combination can run here.

        Raises:
            UnavailableError: it cannot; the message says what is missing.
        """
        if self.model.name == "ase":
            # Where the calculator runs is its own affair; batches are handed to it on the CPU.
            self.device = "cpu"
            return self
        if self.device == "auto":
            self.device = "cuda" if _is_cuda("auto") else "cpu"
        elif self.device != "cpu" and not _is_cuda("auto"):
            raise UnavailableError(f"device={self.device}: this machine has no CUDA GPU; use device=cpu or device=auto")
        _, _, ordinal = self.device.partition(":")
        if ordinal and int(ordinal) >= (gpus := _n_gpus()):
            raise UnavailableError(f"device={self.device}: CUDA GPUs of this machine: {gpus}, from cuda:0 on")
        if self.device == "cpu" and self.precision.name == "tf32":
            usable = ", ".join(name for name in PRECISIONS if name != "tf32")
            raise UnavailableError(f"precision=tf32 needs a CUDA GPU; on device=cpu use one of: {usable}")
        beside = [("task.beside", name) for name in getattr(self.task, "beside", [])]
        for key, engine in [("engine", self.engine.name), *beside]:
            if self.device == "cpu" and engine in ("cuda_graph", "fused"):
                raise UnavailableError(f"{key}={engine} needs a CUDA GPU; on device=cpu use one of: eager, compile")
            if engine == "fused" and self.precision.name not in FUSED_PRECISIONS:
                raise UnavailableError(
                    f"{key}=fused has no precision={self.precision.name}; use one of: {', '.join(FUSED_PRECISIONS)}"
                )
        return self


def parse(config: DictConfig) -> Config:
    """The composed configuration as dataclasses, every value checked.

    Raises:
        ConfigError: a wrong value; the message names it and the legal ones.
    """
    # Before any value is refused: the message would repeat what must not be said.
    recorded = _recorded(config)
    masking.learn(recorded)
    _refuse_names_from_outside(recorded)
    parsed = OmegaConf.to_object(config)
    if not isinstance(parsed, Config):
        raise ConfigError(
            "the configuration is not based on mlff_exp's schema: start config.yaml with '- /schema/config'"
        )
    _refuse_added(config)
    return parsed


def _refuse_names_from_outside(recorded: Mapping[str, Any]) -> None:
    """Refuse names of files, directories and tags that an environment variable gives: they would show its value."""
    for group in ("sweep", "gate", "system"):
        values = recorded.get(group)
        name = values.get("name") if isinstance(values, Mapping) else None
        if isinstance(name, str) and "${oc.env:" in name:
            raise ConfigError(
                f"{group}.name={name} would show the value of an environment variable in names of files and in MLflow: "
                "say the name itself"
            )


def _refuse_added(node: DictConfig, prefix: str = "") -> None:
    """Refuse keys that no dataclass has: Hydra adds them for the asking (``+engin=eager``), and nothing reads them."""
    kind = OmegaConf.get_type(node)
    for key, value in ((str(key), value) for key, value in node.items_ex(resolve=False)):
        if is_dataclass(kind) and key not in (legal := [item.name for item in fields(kind)]):
            raise ConfigError(f"{prefix}{key} is no key of ours: nothing would read it; {_keys(key, legal)}")
        if isinstance(value, DictConfig) and not value._is_none():
            _refuse_added(value, f"{prefix}{key}.")


def _keys(wrong: str, legal: Sequence[str]) -> str:
    return f"legal keys: {', '.join(legal)}{did_you_mean(wrong, legal)}"


def refuse_ignored(config: Config, overrides: Iterable[str]) -> None:
    """Refuse words that would change nothing.

    Raises:
        ConfigError: an engine or a precision for an ASE calculator, or a system beside those of the task.
    """
    if config.model.name == "ase" and getattr(config.task, "beside", []):
        raise ConfigError(f"task.beside={config.task.beside}: no engine runs model=ase, so none can be beside it")
    for override in overrides:
        if config.tracking.name != "local" and re.match(r"\+*tracking\.directory=", override):
            raise ConfigError(f"{override}: tracking={config.tracking.name} keeps no store in a directory")
        if config.tracking.name == "offline" and re.match(r"\+*tracking\.experiment=", override):
            raise ConfigError(f"{override}: tracking=offline is no experiment's: say mlff-exp-sync --experiment later")
        if getattr(config.task, "systems", []) and re.match(r"\+*system\b", override):
            raise ConfigError(f"{override}: task.systems={list(config.task.systems)} takes its place")
        if config.model.name == "ase" and re.match(r"\+*(engine|precision)\b", override):
            raise ConfigError(f"{override}: model=ase runs as it is and takes no engine and no precision")


def _unused(config: Config, key: str, override: str) -> str | None:
    """Why a word changes nothing in a run, if so."""
    task = config.task
    if instead := UNUSED[task.name].get(key):
        return f"task={task.name} takes no {key}; {instead}"
    if key == "gate" and task.name != "nve" and not config.gate_required:
        return f"task={task.name} is judged by no gate; task=nve is"
    if key == "device" and config.model.name == "ase" and not override.endswith(("=cpu", "=auto")):
        return "model=ase runs where its calculator does; batches are handed to it on the CPU"
    engines = {config.engine.name, *getattr(task, "beside", [])}
    compiles = task.name == "distill" or (config.model.name != "ase" and engines != {"eager"})
    if key == "cold_compile" and not override.endswith("=false") and not compiles:
        return "nothing is compiled"
    return None


def refuse_unused(jobs: Iterable[tuple[Config, Iterable[str]]]) -> None:
    """Refuse words that would change nothing in any job that they are said to.

    Others of the jobs may take them: a system given to an experiment is for all of its tasks but ``accuracy``.

    Raises:
        ConfigError: naming the word, the task and what to say instead.
    """
    unused: dict[str, str] = {}
    used = set()
    for config, overrides in jobs:
        for override in overrides:
            key = re.split(r"[.=@]", override.lstrip("+"), maxsplit=1)[0]
            if reason := _unused(config, key, override):
                unused.setdefault(key, f"{override}: {reason}")
            else:
                used.add(key)
    for key, reason in unused.items():
        if key not in used:
            raise ConfigError(reason)


KINDS: dict[str, dict[str, type]] = {
    "task": TASKS,
    "model": {"student": StudentModel, "ase": AseModel},
    "system": {"molecule": MoleculeSystem, "file": FileSystem, "water_box": WaterBox},
    "engine": ENGINE_TYPES,
}


def register() -> None:
    """Make the schemas known to Hydra, which checks names and types against them while composing."""
    OmegaConf.register_new_resolver("low_precision", _low_precision, replace=True)
    OmegaConf.register_new_resolver("fast_engine", _fast_engine, replace=True)
    OmegaConf.register_new_resolver("is_cuda", _is_cuda, replace=True)
    OmegaConf.register_new_resolver("oc.env", masking.env, replace=True)
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    schemas: dict[str, dict[str, type]] = {
        **KINDS,
        "precision": {"precision": PrecisionConfig},
        "gate": {"gate": Gate},
        "tracking": {"tracking": Tracking},
    }
    for group, nodes in schemas.items():
        for name, node in nodes.items():
            store.store(group=f"schema/{group}", name=name, node=node)


def _low_precision(device: str) -> Precision:
    """The 16-bit precision that suits a device; ``${low_precision:${device}}`` in configurations."""
    return "fp16_autocast" if _is_cuda(device) else "bf16_autocast"


def _fast_engine(device: str, systems: Literal["any", "molecules"] = "any") -> EngineName:
    """The engine for long dynamics on a device; ``${fast_engine:${device}}`` in configurations.

    ``molecules`` promises what the fused engine takes: up to 64 atoms, not periodic, a model of this project.
    """
    if not _is_cuda(device):
        return "compile"
    return "fused" if systems == "molecules" else "cuda_graph"


def _is_cuda(device: str) -> bool:
    """Whether a device is, or ``auto`` would be, a CUDA GPU; ``${is_cuda:${device}}`` in configurations.

    A device that is named is taken at its word: where a sweep is composed need not be where its runs are.
    """
    if device != "auto":
        return device != "cpu"
    # Imported here: it takes seconds, and what is named is clear without asking.
    import torch

    return torch.cuda.is_available()


def _n_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def asked(composed: DictConfig) -> dict[str, Any]:
    """The configuration of one run as plain values, with what is not used as well."""
    given: dict[str, Any] = masked(_recorded(composed))
    return given | what_runs(given)


def resolved(composed: DictConfig) -> dict[str, Any]:
    """The configuration of one run as plain values: what ran, and what tells the run apart from others.

    What an environment variable gave stands there as its interpolation, ``${oc.env:NAME}``, unless it is a number or
    one of the words that a configuration can be made of.
    """
    given = asked(composed)
    values = what_runs(given)
    # The plan of the whole experiment belongs to the sweep, not to each of its runs.
    for key in ("stages", "parameters", "resume", "budget_s", "compile_ahead"):
        values["sweep"].pop(key)
    keys = values["sweep"].pop("varied")
    if keys is None:
        keys = naming.unusual(values, _usual(values))
    # Of what was asked for: jobs that differ only in what they take no notice of are told apart as well.
    values["sweep"]["varied"] = naming.values_of(given, keys)
    return values


def _usual(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a run has where nothing else is said, in the form of its plain values."""
    groups = {"task": TASKS.get(values["task"]["name"], InferenceTask), "model": StudentModel, "system": FileSystem}
    usual: dict[str, Any] = {group: _defaults(kind) for group, kind in groups.items()}
    return _defaults(Config) | usual | {"gate": {"name": USUAL_GATE}}


def _defaults(kind: type) -> dict[str, Any]:
    found = {}
    for item in fields(kind):
        if item.default_factory is not MISSING_DEFAULT:
            made = item.default_factory()
            found[item.name] = {} if is_dataclass(made) else made
        elif item.default is not MISSING_DEFAULT:
            found[item.name] = item.default
    return found


def _recorded(node: DictConfig | ListConfig) -> Any:
    """A configuration as plain values; the texts that hold values of environment variables as what was asked for."""
    if isinstance(node, ListConfig):
        return [_recorded_item(node, index) for index in range(len(node))]
    return {str(key): _recorded_item(node, key) for key in node}


def _recorded_item(parent: DictConfig | ListConfig, key: Any) -> Any:
    if OmegaConf.is_missing(parent, key):
        return "???"
    with masking.reading() as names:
        try:
            value = parent[key]
        except OmegaConfBaseException:  # whoever needs the value is told
            return None
    if OmegaConf.is_config(value):
        return _recorded(value)
    if not names or not isinstance(value, str) or _is_word(value):
        return value
    masking.remember([value, *(os.environ[name] for name in names)])
    raw: Any = OmegaConf.to_container(parent, resolve=False)
    text: str = raw[key]
    return text if "oc.env:" in text else " ".join(f"${{oc.env:{name}}}" for name in sorted(names))


def _is_word(value: str) -> bool:
    """Whether a text is a word that configurations are made of, which is nobody's secret."""
    words = (*PRECISIONS, *ENGINES, *COMPILE_MODES, *TRACKING_NAMES, *INTEGRATORS, *MOLECULES, *TASKS)
    return value in (*words, *shipped_checkpoints(), "ase") or re.fullmatch(DEVICE, value) is not None


def save_resolved(composed: DictConfig, directory: Path) -> dict[str, Any]:
    """The configuration as plain values, also written to ``config.yaml`` in the run's directory."""
    values = resolved(composed)
    OmegaConf.save(OmegaConf.create(values), directory / "config.yaml")
    return values


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between the recorded configurations of a run, except where it is recorded: ``key: old → new``."""
    kept = [
        {key: values[key] for key in values if key not in ("sweep", "tracking", "timeout_s", "trust")}
        for values in (before, now)
    ]
    flat = [flatten(values) for values in kept]
    keys = sorted(flat[0].keys() | flat[1].keys())
    return [f"{key}: {flat[0].get(key)} → {flat[1].get(key)}" for key in keys if flat[0].get(key) != flat[1].get(key)]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted names; values as text."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = str(value)
    return flat
