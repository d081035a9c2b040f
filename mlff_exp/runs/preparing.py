"""Prepare a sweep: compose and check every job before the first one runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mlff_exp.common import progress_bar
from mlff_exp.config import (
    Config,
    ConfigError,
    Stage,
    UnavailableError,
    parse_config,
    refuse_ignored,
)
from mlff_exp.results import Conditions, find_varied_keys, recorded_varied
from mlff_exp.runs.host import SweepHost
from mlff_exp.runs.shared_words import refuse_several, refuse_shared
from mlff_exp.tasks import (
    check_engines,
    on_this_machine,
    refuse_unused,
    requested_values,
    resolve_config,
    usual_by_system,
    what_runs,
)

BAR_AFTER_S = 1.0  # planning that takes longer shows a progress bar


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        stage: name of its stage.
        gate: whether a NO-GO ends the sweep.
        overrides: the words of this job.
        config: the checked configuration.
        resolved: the configuration as plain values.
        unavailable: why the job can't run on this machine, or None.
    """

    stage: str
    gate: bool
    overrides: list[str]
    config: Config
    resolved: dict[str, Any]
    unavailable: str | None

    @property
    def varied(self) -> str:
        """The override that gives the job the keys by which it differs from the others."""
        quoted = ["'" + key.replace("\\", "\\\\").replace("'", "\\'") + "'" for key in recorded_varied(self.resolved)]
        return f"sweep.varied=[{','.join(quoted)}]"


@dataclass(frozen=True)
class NamedSystem:
    """A system that a command line or an experiment names.

    Attributes:
        values: plain values of the configuration's ``system``.
        usual: the usual conditions of its dynamics.
    """

    values: Mapping[str, Any]
    usual: Conditions


@dataclass(frozen=True)
class PreparedSweep:
    """A sweep before it runs.

    Attributes:
        master: the configuration that all jobs share; a swept key has its first value.
        jobs: in the order of execution.
        systems: the systems that the command line or the experiment names; systems that only a stage names are not
            included. Empty if the task has no system.
    """

    master: Config
    jobs: list[Job]
    systems: list[NamedSystem] = field(default_factory=list)


def prepare_sweep(host: SweepHost, arguments: Sequence[str]) -> PreparedSweep:
    """Compose and check every job of a sweep.

    Raises:
        ConfigError: a word or a job is wrong.
        UnavailableError: a job of a plain sweep can't run on this machine.
    """
    joined = join_parameters(host, arguments)
    first = host.products(host.parse(joined))[0]  # a required key may be one that is swept
    master = parse_config(host.compose(first))
    return PreparedSweep(master, prepare_jobs(host, joined, master.sweep.stages), _systems(host, host.parse(joined)))


def _systems(host: SweepHost, words: list[Any]) -> list[NamedSystem]:
    """Return the systems of a sweep, with the first value of every other swept word."""
    keys = re.compile(r"system(\..*)?|task\.systems")
    swept = [word for word in words if word.is_sweep_override() and keys.fullmatch(word.key_or_group)]
    others = host.products([word for word in words if word not in swept])[0]
    found: dict[str, NamedSystem] = {}
    for chosen in host.products(swept):
        composed = host.compose([*others, *chosen])
        ran = what_runs(requested_values(composed))
        usual = Conditions(
            usual_by_system("timestep_fs", _root_=composed), usual_by_system("temperature_k", _root_=composed)
        )
        named = [{"name": name} for name in ran["task"].get("systems") or ()]
        for system in named or [ran[key] for key in ran if key == "system"]:
            found.setdefault(repr(system), NamedSystem(system, usual))
    return list(found.values())


def join_parameters(host: SweepHost, arguments: Sequence[str]) -> list[str]:
    """Return the arguments, with the lists of ``sweep.parameters`` quoted as single values.

    ``sweep.parameters.batch_sizes=1,4`` is a list for the stages, which sweep over it; the word itself is not swept.

    Raises:
        ConfigError: a word of which a sweep has one has several values.
    """
    joined, overrides = [], host.parse(arguments)
    refuse_several(overrides)
    for override in overrides:
        argument = str(override.input_line)
        if override.key_or_group.startswith("sweep.parameters.") and override.is_sweep_override():
            left, value = argument.split("=", 1)
            argument = f"{left}='{value}'"
        joined.append(argument)
    return joined


def prepare_jobs(host: SweepHost, arguments: Sequence[str], stages: Sequence[Stage]) -> list[Job]:
    """Return the jobs of all stages; a sweep without stages has one stage.

    Raises:
        ConfigError: a job is wrong, or a word changes nothing in any job.
        UnavailableError: a job of a sweep without stages can't run on this machine.
    """
    params = host.parse([f"{key}={value}" for key, value in host.params.items()])
    refuse_shared(params, "hydra.sweeper.params")
    given = [*params, *host.parse(arguments)]
    keys = {override.get_key_element() for override in given}
    planned: list[tuple[Stage, list[str]]] = []
    for stage in stages or [Stage(name="sweep")]:
        # A word of the command line overrides a word of the stage.
        words = host.parse(stage.overrides)
        refuse_shared(words, f"stage {stage.name!r}")
        own = [override for override in words if override.get_key_element() not in keys]
        planned += [(stage, overrides) for overrides in host.products(given + own, len(planned))]
    jobs: list[Job] = []
    every: list[DictConfig] = []
    with progress_bar(len(planned), "planning", "job", leave=False, delay=BAR_AFTER_S) as bar:
        for stage, overrides in planned:
            composed = host.compose(overrides)
            config = parse_config(composed)
            refuse_ignored(config, overrides)
            check_engines(config)
            unavailable = None
            if host.here:
                try:
                    config = on_this_machine(config)
                except UnavailableError as error:
                    if not stages:
                        raise
                    unavailable = str(error)
            gate = stage.gate and config.gate.name != "off"
            jobs.append(Job(stage.name, gate, overrides, config, {}, unavailable))
            every.append(composed)
            bar.update()
    refuse_unused((job.config, job.overrides) for job in jobs)
    _refuse_doubles(jobs, every)
    # The keys by which jobs differ depend on all of them.
    requested = [requested_values(composed) for composed in every]
    varied = find_varied_keys(requested, [what_runs(values) for values in requested])
    for composed, keys_of_job in zip(every, varied, strict=True):
        composed.sweep.varied = keys_of_job
    return [replace(job, resolved=resolve_config(composed)) for job, composed in zip(jobs, every, strict=True)]


def _refuse_doubles(jobs: Sequence[Job], every: Sequence[DictConfig]) -> None:
    """Refuse a value that is swept twice, however it is written: a second run would be a row that looks like the first.

    Raises:
        ConfigError: there are such words. The message names them.
    """
    seen = set()
    for job, composed in zip(jobs, every, strict=True):
        row = (job.stage, repr(OmegaConf.to_container(composed)))
        if row in seen:
            raise ConfigError(f"two runs of the sweep are the same, {' '.join(job.overrides)}: give each value once")
        seen.add(row)


def refuse_gates_that_cannot_run(jobs: Iterable[Job]) -> None:
    """Refuse a gate that would be skipped, because the stages after it need its GO.

    Raises:
        UnavailableError: the message names the stage, and why it can't run here.
    """
    for job in jobs:
        if job.gate and job.unavailable is not None:
            raise UnavailableError(f"the gate of stage {job.stage!r} can't run: {job.unavailable}")
