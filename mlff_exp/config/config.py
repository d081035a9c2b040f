"""The configuration as dataclasses; every bad value is refused here, before any work.

Nothing in this module imports torch, so that a typo is reported at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING as MISSING_DEFAULT
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlff_exp.common import learn_secrets, reading_secrets, remember_secret
from mlff_exp.config.checkpoints import shipped_checkpoints
from mlff_exp.config.checks import choose, did_you_mean, limited, plain, shown, within_limits
from mlff_exp.config.device import check_device
from mlff_exp.config.errors import ConfigError
from mlff_exp.config.gate import Gate
from mlff_exp.config.precision import PrecisionConfig
from mlff_exp.config.shapes import refuse_other_shapes
from mlff_exp.config.systems import CRYSTALS, MOLECULES, Crystal, WaterBox
from mlff_exp.config.words import (
    COMPILE_MODES,
    DEVICE,
    INTEGRATORS,
    MAX_ATOMS,
    MAX_SYSTEMS,
    NATIVE,
    PRECISIONS,
    TRACKING_NAMES,
    YEAR_S,
    is_learned,
    is_native,
)

MAX_SWEEP_NAME = 100  # characters; a directory is called by it and a time


@dataclass
class NativeEngine:
    """The engine of a model that runs without an engine of ours, such as an ASE calculator; it can't be selected."""

    name: str = NATIVE


@dataclass
class NativePrecision(PrecisionConfig):
    """The precision of a model that runs without an engine of ours; it can't be selected."""

    name: str = NATIVE

    def __post_init__(self) -> None:
        """Check nothing: the only name is ``native``."""


@dataclass
class Tracking:
    """The store that gets the results, besides the run's own directory.

    Attributes:
        name: local (SQLite), server (MLFLOW_TRACKING_URI) or offline (no store until `mlff-exp-sync`).
        directory: directory of the local store.
        experiment: name of the experiment in MLflow.
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
    """One sweep within an experiment: all combinations of its overrides.

    Attributes:
        name: name of the stage in progress bars.
        overrides: words as on the command line; values separated by commas are swept.
        gate: whether the experiment ends after this stage unless every verdict is GO.
    """

    name: str = MISSING
    overrides: list[str] = field(default_factory=list)
    gate: bool = False


def check_sweep_name(name: str) -> None:
    """Refuse a name of a sweep that can't be a part of the name of a directory.

    Raises:
        ConfigError: the message names it and what is legal.
    """
    plain("sweep.name", name, MAX_SWEEP_NAME)


@dataclass
class Sweep:
    """The multirun that a run belongs to.

    Attributes:
        name: name of the experiment file, or "sweep".
        stages: stages of an experiment; empty for a plain multirun.
        parameters: values that the stages of an experiment use, so that the experiment can be made smaller or larger.
        resume: directory or MLflow run id of a sweep that did not finish; only the missing jobs run.
        budget_s: seconds after which no more runs start; `resume` runs the rest.
        compile_ahead: whether Inductor's cache is filled on all cores before the first run; see `runs.ahead`.
        targets: targets that the report judges the runs by: names of files in conf/targets, or paths.
        id: id of the parent run; set by the sweeper.
        gate_decision: the recorded decision of the gate on the weights; set by the sweeper if `gate_required`.
        varied: keys that distinguish the jobs where their labels do not; set by the sweeper. A run of a sweep records
            their values; a single run records the values that differ from the defaults.
    """

    name: str = "sweep"
    stages: list[Stage] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    resume: str | None = None
    budget_s: float | None = limited(None, most=YEAR_S)
    compile_ahead: bool = False
    targets: list[str] = field(default_factory=lambda: ["plan", "ours"])
    id: str | None = None
    gate_decision: str = "no_verdict"
    varied: list[str] | None = None

    def __post_init__(self) -> None:
        check_sweep_name(self.name)
        within_limits(self, "sweep.")
        if self.resume is not None and not self.resume.strip():
            raise ConfigError(f"sweep.resume={self.resume!r} must be the directory or the MLflow id of a sweep")


@dataclass
class Config:
    """The configuration of a run. Each group holds the dataclass of the chosen option.

    Attributes:
        trust: packages and features of Hydra that the configuration may use. Only the command line can set it. The
            command adds the packages that the command line names. See the module `trust`.
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
                raise ConfigError(f"{group}.name={shown(repr(chosen.name))} changes nothing: say {group}=… instead")
        within_limits(self)
        check_device(self.device)
        self._refuse_what_cannot_fit()
        if is_native(getattr(self.model, "name", "")):
            self.engine, self.precision = NativeEngine(), NativePrecision()

    def _refuse_what_cannot_fit(self) -> None:
        """Refuse a batch with more than `MAX_ATOMS` atoms."""
        copies = getattr(self.task, "copies", None)  # a task without this method puts no system into a batch
        if isinstance(self.system, WaterBox | Crystal) and copies is not None:
            key, n_copies = copies(self.batch_size)
            n_atoms = self.system.n_atoms * n_copies
            if n_atoms > MAX_ATOMS:
                raise ConfigError(
                    f"{key}={n_copies} of system.name={self.system.name} with {self.system.n_atoms:,} atoms are "
                    f"{n_atoms:,} atoms; a batch holds at most {MAX_ATOMS:,}"
                )


def parse_config(config: DictConfig) -> Config:
    """Turn a composed configuration into dataclasses, and check every value.

    Args:
        config: the configuration that Hydra composed, without Hydra's own part.

    Raises:
        ConfigError: a value is wrong; the message names it and the legal ones.
    """
    # Secrets are learnt first, because the message of a refusal repeats the value.
    recorded = recorded_values(config)
    learn_secrets(recorded)
    _refuse_names_from_outside(recorded)
    refuse_other_schema(config)
    refuse_other_shapes(config)
    parsed = OmegaConf.to_object(config)
    assert isinstance(parsed, Config), "it has our schema"
    _refuse_added(config)
    return parsed


def refuse_other_schema(config: DictConfig) -> None:
    """Refuse a configuration that is not based on the schema of this package.

    Args:
        config: the configuration that Hydra composed.

    Raises:
        ConfigError: the schema is another; the message says how a configuration begins.
    """
    if OmegaConf.get_type(config) is not Config:
        raise ConfigError(
            "the configuration is not based on mlff_exp's schema: start config.yaml with '- /schema/config'"
        )


def _refuse_names_from_outside(recorded: Mapping[str, Any]) -> None:
    """Refuse names that an environment variable gives, because files, directories and tags would show its value."""
    for group in ("sweep", "gate", "system"):
        values = recorded.get(group)
        name = values.get("name") if isinstance(values, Mapping) else None
        if isinstance(name, str) and "${oc.env:" in name:
            raise ConfigError(
                f"{group}.name={name} would show the value of an environment variable in names of files and in MLflow: "
                "say the name itself"
            )


def _refuse_added(node: DictConfig, prefix: str = "") -> None:
    """Refuse keys that no dataclass has. Hydra adds such keys (``+engin=eager``), and nothing would read them."""
    kind = OmegaConf.get_type(node)
    for key, value in ((str(key), value) for key, value in node.items_ex(resolve=False)):
        if is_dataclass(kind) and key not in (legal := [item.name for item in fields(kind)]):
            raise ConfigError(f"{prefix}{key} is no key of ours: nothing would read it; {_keys(key, legal)}")
        if isinstance(value, DictConfig) and not value._is_none():
            _refuse_added(value, f"{prefix}{key}.")


def _keys(wrong: str, legal: Sequence[str]) -> str:
    return f"legal keys: {', '.join(legal)}{did_you_mean(wrong, legal)}"


def refuse_ignored(config: Config, overrides: Iterable[str]) -> None:
    """Refuse words that would change nothing because of another word.

    Args:
        config: the configuration.
        overrides: the words of the command line.

    Raises:
        ConfigError: a word has no effect, such as an engine for an ASE calculator; the message names both words.
    """
    model = f"model={config.model.name}"
    if config.engine.name == NATIVE and getattr(config.task, "baselines", []):
        raise ConfigError(
            f"task.baselines={config.task.baselines}: no engine runs {model}, so none can be its baseline"
        )
    for override in overrides:
        if config.tracking.name != "local" and re.match(r"\+*tracking\.directory=", override):
            raise ConfigError(f"{override}: tracking={config.tracking.name} keeps no store in a directory")
        if config.tracking.name == "offline" and re.match(r"\+*tracking\.experiment=", override):
            raise ConfigError(f"{override}: tracking=offline is no experiment's: say mlff-exp-sync --experiment later")
        if getattr(config.task, "systems", []) and re.match(r"\+*system\b", override):
            raise ConfigError(f"{override}: task.systems={list(config.task.systems)} takes its place")
        if config.engine.name == NATIVE and re.match(r"\+*(engine|precision)\b", override):
            raise ConfigError(f"{override}: {model} runs as it is and takes no engine and no precision")


def defaults(kind: type) -> dict[str, Any]:
    """Return the defaults of a dataclass as plain values; a field without a default is absent."""
    found = {}
    for item in fields(kind) if is_dataclass(kind) else ():
        if item.default_factory is not MISSING_DEFAULT:
            made = item.default_factory()
            found[item.name] = {} if is_dataclass(made) else made
        elif item.default is not MISSING_DEFAULT:
            found[item.name] = item.default
    return found


def recorded_values(node: DictConfig | ListConfig) -> Any:
    """Return a configuration as plain values; a text with values of environment variables stays ``${oc.env:NAME}``.

    Args:
        node: a mapping or a list of the configuration.
    """
    if isinstance(node, ListConfig):
        return [_recorded_item(node, index) for index in range(len(node))]
    return {str(key): _recorded_item(node, key) for key in node}


def _recorded_item(parent: DictConfig | ListConfig, key: Any) -> Any:
    if OmegaConf.is_missing(parent, key):
        return "???"
    with reading_secrets() as names:
        try:
            value = parent[key]
        except OmegaConfBaseException:  # parsing the configuration reports it
            return None
    if OmegaConf.is_config(value):
        return recorded_values(value)
    if not names or not isinstance(value, str) or _is_word(value):
        return value
    remember_secret([value, *(os.environ[name] for name in names)])
    raw: Any = OmegaConf.to_container(parent, resolve=False)
    text: str = raw[key]
    return text if "oc.env:" in text else " ".join(f"${{oc.env:{name}}}" for name in sorted(names))


def _is_word(value: str) -> bool:
    """Return whether a text is a word of the configuration, which can't be a secret."""
    words = (*PRECISIONS, *COMPILE_MODES, *TRACKING_NAMES, *INTEGRATORS, *MOLECULES, *CRYSTALS)
    return value in (*words, *shipped_checkpoints()) or is_learned(value) or re.fullmatch(DEVICE, value) is not None
