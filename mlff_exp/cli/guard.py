"""Judges each configuration that Hydra composes, before Hydra makes anything of it.

Hydra imports and calls what a configuration names: callbacks, logging handlers, launchers, arguments of them. What the
command line says itself is taken at its word; what comes from a file must be plain, or allowed by ``trust=[…]``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from mlff_exp.cli.file_shapes import refuse_misshapen
from mlff_exp.cli.hydra_rules import RECORDS, RULES, Parts
from mlff_exp.cli.interpolations import merged, refuse_bomb
from mlff_exp.cli.overrides import n_values
from mlff_exp.cli.plain_values import refuse_lenient
from mlff_exp.cli.schemas import register_schemas
from mlff_exp.cli.yaml_files import BoundedRepository
from mlff_exp.common import mask_secrets
from mlff_exp.config import (
    FEATURES,
    ConfigError,
    check_sweep_name,
    check_trust,
    is_installed,
    judge_factory,
    judge_import_path,
    make_importable,
    refuse_other_schema,
    top_level,
)
from mlff_exp.models import MODELS

TARGET = "model.calculator._target_"
# Said by the sweeper to the jobs that it launches; anybody else who says one of them would forge a record.
SWEEP_WORDS: dict[str, Any] = {"id": None, "gate_decision": "no_verdict"}

_MADE = ("launcher", "sweeper")
_MAPPINGS = (*_MADE, "run", "sweep", "job", "runtime", "overrides", "job_logging", "hydra_logging")
# Arguments of every ASE calculator that make directories, read files or start programs; by position as well.
_FILES_OF_CALCULATORS = ("_args_", "label", "directory", "restart", "command", "profile")


class GuardedLoader(ConfigLoaderImpl):
    """Hydra's loader of configurations, which refuses what a file may not say; it travels with launched jobs.

    Args:
        config_search_path: as Hydra's.
        words: overrides as they stand on the command line.

    Raises:
        ConfigError: ``trust`` is no list of packages and features.
    """

    def __init__(self, config_search_path: Any, words: Sequence[str] = ()) -> None:
        super().__init__(config_search_path)
        self.repository = BoundedRepository(config_search_path)
        self._directory = Path.cwd()
        self._said = set[tuple[str, str]]()
        self._trust: list[str] = []
        self._sweep_words = dict(SWEEP_WORDS)
        self._in_files: list[tuple[Parts, Any]] = []
        self._unresolved: Any = {}  # what the files that Hydra has merged so far say
        for override in _parsed(words):
            if override.key_or_group == "trust" and not override.is_delete():
                self._trust += _trusted(override)
            self._said |= set(_values(override))
        check_trust(self._trust)

    def allow_sweep_words(self, sweep_id: str | None, gate_decision: str, where: str) -> None:
        """Allow the next jobs to set the words that only the sweeper may set.

        Args:
            sweep_id: of the parent run.
            gate_decision: on the weights.
            where: the override with the directory of the sweep.
        """
        self._sweep_words = {"id": sweep_id, "gate_decision": gate_decision}
        for override in _parsed([where]):
            self._said |= set(_values(override))

    def load_configuration(self, config_name: str | None, overrides: list[str], *rest: Any, **by: Any) -> DictConfig:
        """Compose as Hydra does, and judge the outcome.

        Raises:
            ConfigError: a file says what only the command line may, or nobody.
        """
        register_schemas()  # a launched job has not done so
        self._in_files, self._unresolved = [], {}
        try:
            composed = super().load_configuration(config_name, overrides, *rest, **by)
        except KeyError as error:
            raise ConfigError(f"hydra.job.env_copy: the environment has no {error}") from error
        with read_write(composed), open_dict(composed):
            self._judge(composed, overrides, hydra_alone=config_name is None)
            _mask_dirname(composed.hydra.job)
        return composed

    def _judge(self, composed: DictConfig, overrides: Sequence[str], *, hydra_alone: bool) -> None:
        refuse_bomb(OmegaConf.to_container(composed, resolve=False))
        hydra = OmegaConf.to_container(composed.hydra, resolve=False)
        assert isinstance(hydra, dict)
        _refuse_unmade(hydra)
        said = [*hydra["overrides"]["hydra"], *hydra["overrides"]["task"]]
        if sorted(said) != sorted(overrides):
            raise ConfigError("hydra.overrides is Hydra's record of the command line: no file can set it")
        # Before anything is said of our own part: Hydra makes its objects without it.
        self._judge_hydra({"hydra": hydra})
        self._judge_records()
        if hydra_alone:  # to show its help
            return
        if hydra["output_subdir"] is not None:
            raise ConfigError(
                f"hydra.output_subdir={hydra['output_subdir']}: Hydra's own files would hold passwords as they were "
                "given; config.yaml in the run's directory says all that they would"
            )
        refuse_other_schema(composed)
        self._judge_types(composed, overrides)
        self._judge_trust(composed)
        self._judge_sweep(composed)
        named = [*self._judge_calculator(composed), *self._judge_factories(composed)]
        composed.trust = [*self._trust, *(top for top in named if top not in self._trust)]
        make_importable(composed.trust, self._directory)

    def _load_single_config(self, default: Any, repo: Any) -> Any:
        """Load as Hydra does, judge what Hydra may resolve to merge it, and keep the values of a file as written."""
        loaded = super()._load_single_config(default, repo)
        self._unresolved = merged(self._unresolved, OmegaConf.to_container(loaded.config, resolve=False))
        if str(loaded.path).startswith("file://"):
            self._in_files += _leaves(loaded.config)
            refuse_bomb(self._unresolved)
            refuse_misshapen(loaded.config, default.config_path)
        return loaded

    def _judge_types(self, composed: DictConfig, overrides: Sequence[str]) -> None:
        """Refuse values that would be converted to something else than was written."""
        words = (override for override in _parsed(overrides) if not override.is_delete())
        typed = [
            ((*override.key_or_group.split("."), *parts), value)
            for override in words
            if not override.is_sweep_override()
            for parts, value in _leaves(Override._convert_value(override.value()))  # type: ignore[arg-type]
        ]
        for parts, value in [*self._in_files, *typed]:
            if parts[:1] != ("hydra",):
                refuse_lenient(composed, parts, value)

    def _judge_trust(self, composed: DictConfig) -> None:
        found = OmegaConf.to_container(composed, resolve=False)["trust"]  # type: ignore[call-overload, index]
        if found != self._trust:
            raise ConfigError(f"trust={found}: the command line alone can say whom to trust, no file and no stage")

    def _judge_hydra(self, values: Mapping[str, Any]) -> None:
        copied = _at(values, "hydra.job.env_copy") or []
        for key, (feature, is_plain) in RULES.items():
            if feature in self._trust:
                continue
            for parts, value in _leaves(_at(values, key)):
                name = ".".join((key, *parts))
                if is_plain(parts, value) or (name, str(value)) in self._said:
                    continue
                if key == "hydra.job.env_set" and ".".join(parts) in copied:
                    continue
                shown = "" if key == "hydra.job.env_set" else f"={value}"
                raise ConfigError(
                    f"{name}{shown} comes from a file, and {FEATURES[feature]}: to allow it say trust=[{feature}] on "
                    "the command line"
                )

    def _judge_records(self) -> None:
        """Refuse in files what Hydra overwrites."""
        for parts, value in self._in_files:
            name = ".".join(parts)
            if f"{name}.".startswith("sweep.varied."):
                raise ConfigError(f"{name}={value} comes from a file: only a sweep sets sweep.varied, for its own runs")
            if f"{name}.".startswith(tuple(f"{record}." for record in RECORDS)):
                raise ConfigError(f"{name}={value} comes from a file, and Hydra finds it out: leave it out")

    def _judge_sweep(self, composed: DictConfig) -> None:
        sweep = composed.sweep
        for key, value in SWEEP_WORDS.items():
            # The raw value, so that no interpolation passes for the default.
            said = OmegaConf.to_container(sweep, resolve=False).get(key)  # type: ignore[union-attr]
            if said not in (value, self._sweep_words[key]):
                raise ConfigError(f"only a sweep sets sweep.{key}, for its own runs")
        try:
            name, resume = sweep.name, sweep.resume
        except OmegaConfBaseException:  # parsing the configuration reports it
            return
        if isinstance(name, str):  # it becomes a directory before that
            check_sweep_name(name)
        if resume is not None and ("sweep.resume", str(resume)) not in self._said:
            directory = (self._directory / str(resume)).resolve()
            if not (directory.is_dir() and directory.is_relative_to(self._directory.resolve())):
                raise ConfigError(
                    f"sweep.resume={resume} comes from a file, and is no directory below the current one: say it on "
                    "the command line"
                )

    def _judge_calculator(self, composed: DictConfig) -> list[str]:
        """The installed packages that the command line names for a calculator."""
        model = OmegaConf.to_container(composed, resolve=False).get("model")  # type: ignore[union-attr]
        asked = _at({"model": model}, TARGET)
        if _at({"model": model}, "model.calculator") == "???":  # parsing the configuration reports it
            return []
        try:
            target = OmegaConf.select(composed, TARGET)
        except OmegaConfBaseException:  # parsing the configuration reports it
            return []
        if target is None or target == "???":
            return []
        top, named = top_level(str(target)), self._named_by_command_line(TARGET, asked, target)
        if not _is_allowed(target, self._trust):
            calculator = {"model": {"calculator": _at({"model": model}, "model.calculator")}}
            self._judge_arguments(calculator, target, named)
        elif top not in self._trust:
            self._judge_files_of_calculator(composed, _at({"model": model}, "model.calculator"), top)
        judge_import_path(target, [*self._trust, *named])
        return named

    def _judge_files_of_calculator(self, composed: DictConfig, raw: Any, top: str) -> None:
        """Refuse from a file what lets a plain calculator make directories or read files.

        The resolved values are judged: one interpolation can stand for all arguments.
        """
        try:
            calculator = OmegaConf.select(composed, "model.calculator")
            resolved = OmegaConf.to_container(calculator, resolve=True) if OmegaConf.is_config(calculator) else {}
        except OmegaConfBaseException:  # parsing the configuration reports it
            resolved = raw
        typed = {parts for parts, value in _leaves(raw) if (_calculator_key(parts), str(value)) in self._said}
        for parts, value in _leaves(resolved):
            key = _calculator_key(parts)
            is_said = parts in typed or (key, str(value)) in self._said
            if parts and parts[0] in _FILES_OF_CALCULATORS and not is_said:
                raise ConfigError(
                    f"{key}={value} comes from a file, and lets a calculator make directories or read files: say it on "
                    f"the command line, or trust=[{top}]"
                )

    def _judge_factories(self, composed: DictConfig) -> list[str]:
        """The installed packages that the command line names for functions that make force fields."""
        codes = dict.fromkeys(f"model.{spec.code}" for spec in MODELS if spec.code is not None)
        return [top for key in codes if key != TARGET for top in self._judge_factory(composed, key)]

    def _judge_factory(self, composed: DictConfig, key: str) -> list[str]:
        """The installed package that the command line names for a function under a key of the model.

        What the options have as a default is code of the package that registered them.
        """
        model = {"model": OmegaConf.to_container(composed, resolve=False).get("model")}  # type: ignore[union-attr]
        asked = _at(model, key)
        try:
            path = OmegaConf.select(composed, key)
        except OmegaConfBaseException:  # parsing the configuration reports it
            return []
        kind = OmegaConf.get_type(composed.model)
        own = {item.name: item.default for item in fields(kind)} if is_dataclass(kind) else {}
        if asked in (None, "???", own.get(key.partition(".")[2])) or path is None:
            return []
        named = self._named_by_command_line(key, asked, path)
        self._judge_arguments(model, path, named, without=(key, "model.name"))
        judge_factory(path, [*self._trust, *named], key)
        return named

    def _named_by_command_line(self, key: str, asked: Any, path: object) -> list[str]:
        """The installed package of an import path that the command line names under a key, if it is not trusted yet."""
        top = top_level(str(path))
        # An interpolation that was typed names nothing: what it leads to may stand in a file.
        typed = "${" not in str(asked) and (key, str(asked)) in self._said
        return [top] if typed and top not in self._trust and is_installed(top) else []

    def _judge_arguments(self, values: Any, path: object, named: list[str], without: Collection[str] = ()) -> None:
        """Refuse arguments from a file for what the command line named: they say what it does."""
        for parts, value in _leaves(values):
            key = ".".join(parts)
            if named and key not in without and (key, str(value)) not in self._said:
                raise ConfigError(
                    f"{key}={value} comes from a file, and is an argument of {path}: say it on the command line, "
                    f"or trust=[{top_level(str(path))}]"
                )

    def _process_config_searchpath(self, config_name: str | None, parsed_overrides: list[Override], repo: Any) -> None:
        """Before Hydra looks there: for ``pkg://`` it imports a module."""
        loaded = repo.load_config(config_path=config_name) if config_name is not None else None
        if loaded is not None:
            refuse_bomb(OmegaConf.to_container(loaded.config, resolve=False))
        in_file = None if loaded is None else OmegaConf.select(loaded.config, "hydra.searchpath")
        places = [value for parts, value in _leaves(in_file)]
        for override in parsed_overrides:
            if override.key_or_group == "hydra.searchpath" and not override.is_delete():
                places += [value for key, value in _values(override) if (key, value) not in self._said]
        for place in map(str, places):
            if "://" in place and not place.startswith("file://") and "hydra.searchpath" not in self._trust:
                raise ConfigError(
                    f"hydra.searchpath=[{place}] comes from a file, and {FEATURES['hydra.searchpath']}: "
                    "to allow it say trust=[hydra.searchpath] on the command line"
                )
        super()._process_config_searchpath(config_name, parsed_overrides, repo)


def _mask_dirname(job: DictConfig) -> None:
    """Mask the words of the command line in the text that Hydra makes of them for names of directories."""
    try:
        dirname = job.override_dirname
    except OmegaConfBaseException:  # a word can't be resolved: parsing the configuration reports it by its own key
        return
    job.override_dirname = mask_secrets(dirname).replace("***", "hidden")


def _refuse_unmade(hydra: Mapping[Any, Any]) -> None:
    """Refuse Hydra's own part where Hydra needs a mapping, or something to make, and has none."""
    for key in _MAPPINGS:
        if not isinstance(hydra.get(key), Mapping):
            raise ConfigError(f"hydra.{key}={hydra.get(key)} must be a mapping: leave it as it is")
    if not isinstance(hydra["job"].get("env_set"), Mapping):
        raise ConfigError("hydra.job.env_set must be a mapping: leave it as it is")
    for key in _MADE:
        if not isinstance(hydra[key].get("_target_"), str):
            raise ConfigError(f"hydra.{key} makes nothing: choose one by hydra/{key}=…")


def _calculator_key(parts: Parts) -> str:
    return ".".join(("model.calculator", *parts))


def _is_allowed(target: object, trust: Collection[str]) -> bool:
    try:
        judge_import_path(target, trust)
    except ConfigError:
        return False
    return True


def _parsed(words: Sequence[str]) -> list[Override]:
    parser, parsed = OverridesParser.create(), []
    for word in words:
        try:
            parsed.append(parser.parse_override(word))
        except HydraException:  # Hydra says so itself when it composes
            continue
    return parsed


def _trusted(override: Override) -> list[str]:
    value = override.value()
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ConfigError(f"{override.input_line} must be a list of names: trust=[package,hydra.callbacks]")
    return [str(word) for word in value]


def _values(override: Override) -> Iterator[tuple[str, str]]:
    """The keys that an override sets, each with its value as text; all values of one that is swept."""
    if override.is_delete() or override.value_type in (ValueType.GLOB_CHOICE_SWEEP, ValueType.INTERVAL_SWEEP):
        return
    n_values([override])  # before millions of them are made
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    for value in values:
        for parts, below in _leaves(Override._convert_value(value)):  # type: ignore[arg-type]
            yield ".".join((override.key_or_group, *parts)), str(below)


def _leaves(value: Any, parts: Parts = ()) -> Iterator[tuple[Parts, Any]]:
    """Yield the values in nested mappings and lists, each with its position."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=False)
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _leaves(below, (*parts, str(key)))
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from _leaves(below, (*parts, str(number)))
    else:
        yield parts, value


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(values, Mapping):
            return None if part != key else values
        values = values.get(part)
    return values
