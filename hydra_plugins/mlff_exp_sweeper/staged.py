"""A sweeper for experiments of several stages, each a product of overrides.

Every job is composed and checked before the first one runs. A stage marked ``gate`` ends the experiment if it says
NO-GO. A plain ``-m`` sweep is an experiment of one stage. ``sweep.resume`` goes on with one that did not end.
"""

# Without postponed annotations: Hydra executes plugins before it makes them known to Python, and dataclasses
# can't resolve such annotations then.
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write


@dataclass
class StagedSweeperConfig:
    """In the configuration as ``hydra.sweeper``; ``params`` as in Hydra's basic sweeper."""

    _target_: str = "hydra_plugins.mlff_exp_sweeper.staged.StagedSweeper"
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="staged", node=StagedSweeperConfig, provider="mlff_exp")


@dataclass(frozen=True)
class Job:
    """One point of the sweep."""

    stage: str
    gate: bool
    overrides: list[str]
    config: Any  # a Config; the sweeper imports ours late
    resolved: dict[str, Any]
    unavailable: str | None


def _varied(job: Job) -> str:
    """The override that tells a job by which keys it differs from the others."""
    from mlff_exp.results import recorded_varied

    quoted = ["'" + key.replace("\\", "\\\\").replace("'", "\\'") + "'" for key in recorded_varied(job.resolved)]
    return f"sweep.varied=[{','.join(quoted)}]"


class StagedSweeper(Sweeper):
    """See the module."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self.params = params or {}
        self.loader: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        from mlff_exp.runs import place_directories, refuse_moved

        refuse_moved(config.hydra, single=False)
        with read_write(config), open_dict(config):  # the launcher and its jobs make this directory
            config.hydra.sweep.dir = str(place_directories("hydra.sweep.dir", config.hydra.sweep.dir))
        self.loader = hydra_context.config_loader
        self.config: DictConfig = config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run everything, write the report, and exit with the code of the whole.

        Raises:
            ConfigError: a job that is wrong, before any has run.
        """
        # Imported here: Hydra imports every plugin at start.
        from mlff_exp.cli import composing_errors
        from mlff_exp.common import hydra_override, mask_secrets, shell_command
        from mlff_exp.config import ConfigError, parse_config
        from mlff_exp.measure import Look
        from mlff_exp.report import write_report
        from mlff_exp.runs import EXIT_INCOMPLETE, claim_directory, exit_code, refuse_used_by_sweep, where_to_look
        from mlff_exp.tracking import (
            SWEEP_FILE,
            directory_of,
            open_store,
            set_run_tag,
            sweep_run,
        )

        look = Look()
        with composing_errors():
            arguments = self._joined(arguments)
            # Of what is swept over the first value: what every job needs may be among it.
            first = self._products(self._parse(arguments))[0]
            master = parse_config(self.config_without_hydra(self.loader.load_sweep_config(self.config, first)))
            jobs = self._plan(arguments, master.sweep.stages)
        directory = Path(self.config.hydra.sweep.dir)
        if master.sweep.resume is None:  # refused before the store is opened, which takes seconds
            self._refuse_gates_that_cannot_run(jobs)
            refuse_used_by_sweep(directory)
        elif any("hydra.sweep.dir" in word for word in self.config.hydra.overrides.hydra):
            raise ConfigError(f"sweep.resume={master.sweep.resume} says which directory: leave out hydra.sweep.dir")
        store = open_store(master.tracking)
        if master.sweep.resume is not None:
            directory = directory_of(store, "sweep.resume", master.sweep.resume)
            if not (directory / SWEEP_FILE).is_file():
                raise ConfigError(f"sweep.resume={directory}: no sweep began there: it has no {SWEEP_FILE}")
            with read_write(self.config), open_dict(self.config):  # the launcher makes this directory
                self.config.hydra.sweep.dir = str(directory)
        gate_decision = self._gate_decision(master, jobs, store)
        done = self._done(jobs, directory)
        directory.mkdir(parents=True, exist_ok=True)
        if master.sweep.resume is None:
            claim_directory(directory)
        OmegaConf.save(mask_secrets(OmegaConf.to_container(self.config)), directory / SWEEP_FILE)

        timed = [job for number, job in enumerate(jobs) if number not in done and job.config.task.name == "inference"]
        if timed and isinstance(self.launcher, BasicLauncher):
            look.warn(timed[0].config.device)
        with sweep_run(store, master.sweep.name, directory) as sweep_id:
            try:
                outcomes, left = self._run(jobs, done, directory, sweep_id, store, master.sweep, gate_decision)
            except KeyboardInterrupt:
                print(f"to go on: {shell_command(hydra_override('sweep.resume', directory))}", file=sys.stderr)
                raise
            written = write_report(directory, master.sweep.name, range(len(jobs)))
            if store is not None and sweep_id is not None:
                set_run_tag(store, sweep_id, "timing.trust", written.trust)
        print(f"report: {written.page}")
        print(where_to_look(master.tracking))
        # The verdict of an optional row is only a row; that of a gate is the experiment's.
        code = exit_code(outcome for outcome, gate in outcomes if gate or outcome.failed)
        for outcome, _ in outcomes:
            if outcome.failed:
                reason = str(outcome.failure_message).partition("\n")[0]
                print(f"{outcome.status}: {outcome.label}: {outcome.failure_kind}: {reason}", file=sys.stderr)
        if left:
            print(f"{left} runs are left; to go on: {shell_command(hydra_override('sweep.resume', directory))}")
        sys.exit(code if code or not left else EXIT_INCOMPLETE)

    def _joined(self, arguments: list[str]) -> list[str]:
        """The arguments with lists for ``sweep.parameters`` as one value each.

        ``sweep.parameters.batch_sizes=1,4`` is meant for the stages, which sweep over it; it is no sweep of its own.
        """
        from mlff_exp.config import ConfigError

        joined = []
        for override in self._parse(arguments):
            argument = str(override.input_line)
            whole = override.key_or_group.startswith("sweep.") and not override.key_or_group.startswith(
                "sweep.parameters."
            )
            if whole and override.is_sweep_override():
                raise ConfigError(f"{argument}: a sweep has one {override.key_or_group}, which its jobs share")
            if override.key_or_group.startswith("sweep.parameters.") and override.is_sweep_override():
                key, value = argument.split("=", 1)
                argument = f"{key}='{value}'"
            joined.append(argument)
        return joined

    @staticmethod
    def config_without_hydra(config: DictConfig) -> DictConfig:
        """The part of a composed configuration that is ours."""
        ours = deepcopy(config)
        with read_write(ours), open_dict(ours):
            del ours["hydra"]
        return ours

    def _plan(self, arguments: list[str], stages: list[Any]) -> list[Job]:
        from mlff_exp.config import Stage, UnavailableError, asked, parse_config, refuse_ignored, refuse_unused
        from mlff_exp.results import resolve_config, varied

        given = self._parse([f"{key}={value}" for key, value in self.params.items()] + arguments)
        keys = {override.get_key_element() for override in given}
        jobs: list[Job] = []
        every: list[DictConfig] = []
        for stage in stages or [Stage(name="sweep")]:
            # What was given on the command line wins over what the stage says.
            own = [override for override in self._parse(stage.overrides) if override.get_key_element() not in keys]
            for overrides in self._products(given + own, len(jobs)):
                composed = self.config_without_hydra(self.loader.load_sweep_config(self.config, overrides))
                config = parse_config(composed)
                refuse_ignored(config, overrides)
                unavailable = None
                # A cluster's nodes are not this machine: there each job finds out for itself.
                if isinstance(self.launcher, BasicLauncher):
                    try:
                        config.on_this_machine()
                    except UnavailableError as error:
                        if not stages:
                            raise
                        unavailable = str(error)
                gate = stage.gate and config.gate.name != "off"
                jobs.append(Job(stage.name, gate, overrides, config, {}, unavailable))
                every.append(composed)
        refuse_unused((job.config, job.overrides) for job in jobs)
        # What tells the jobs apart is known once all of them are.
        for composed, told in zip(every, varied([asked(composed) for composed in every]), strict=True):
            composed.sweep.varied = told
        return [replace(job, resolved=resolve_config(composed)) for job, composed in zip(jobs, every, strict=True)]

    @staticmethod
    def _products(words: list[Any], planned: int = 0) -> list[list[str]]:
        """The overrides of each job that words with several values come to.

        Raises:
            ConfigError: there are none, or more of them than can be, with those that are planned.
        """
        from mlff_exp.cli import n_values

        n_values(words, planned)
        return BasicSweeper.split_arguments(words, max_batch_size=None)[0]

    @staticmethod
    def _gate_decision(master: Any, jobs: list[Job], store: Any) -> str:
        """What is known of the weights before the first run.

        Raises:
            ConfigError: the experiment wants a GO, has no gate of its own, and none is recorded.
        """
        if not master.gate_required or master.gate.name == "off" or master.model.name == "ase" or jobs[0].gate:
            return "no_verdict"
        from mlff_exp.config import ConfigError
        from mlff_exp.models import CheckpointError, load_checkpoint
        from mlff_exp.tracking import (
            found_go,
        )

        try:
            weights = load_checkpoint(master.model.checkpoint).weights_sha256
        except CheckpointError as error:
            raise ConfigError(f"model.checkpoint: {error}") from error
        if found_go(store, weights, master.gate, Path("outputs")):
            return "GO"
        raise ConfigError(
            f"{master.sweep.name} wants a GO of gate={master.gate.name} for {master.model.checkpoint} "
            f"({weights[:12]}), over 100 ps, with these limits, and none is recorded: run experiment=nve_gate first, "
            "or say gate=off"
        )

    def _done(self, jobs: list[Job], directory: Path) -> set[int]:
        """Numbers of the jobs that an earlier attempt in the directory has done; what else it left is put aside.

        Raises:
            ConfigError: what was done is not what is to be done.
            UnavailableError: a gate is to be done and can't run here.
        """
        from mlff_exp.config import ConfigError, changed_keys
        from mlff_exp.results import RESULT_FILE, RunResult

        done, failed = set(), []
        for number, job in enumerate(jobs):
            run_directory = directory / str(number)
            if not run_directory.is_dir():
                continue
            result = RunResult.load(run_directory) if (run_directory / RESULT_FILE).is_file() else None
            finished = result is not None and result.failure is None
            still_unavailable = result is not None and result.status == "SKIPPED" and job.unavailable is not None
            if result is None or not (finished or (still_unavailable and not job.gate)):
                failed.append(run_directory)
                continue
            if different := changed_keys(result.config, job.resolved):
                raise ConfigError(f"sweep.resume={directory}: run {number} was another one: {'; '.join(different[:5])}")
            done.add(number)
        self._refuse_gates_that_cannot_run(job for number, job in enumerate(jobs) if number not in done)
        for run_directory in failed:
            attempt = len(list(directory.glob(f"{run_directory.name}.attempt*")))
            run_directory.rename(run_directory.with_name(f"{run_directory.name}.attempt{attempt}"))
        return done

    @staticmethod
    def _refuse_gates_that_cannot_run(to_do: Iterable[Job]) -> None:
        """Skipped, a gate would say nothing, and what comes after it wants a GO.

        Raises:
            UnavailableError: naming the stage, and why it can't run here.
        """
        from mlff_exp.config import UnavailableError

        for job in to_do:
            if job.gate and job.unavailable is not None:
                raise UnavailableError(f"the gate of stage {job.stage!r} can't run: {job.unavailable}")

    def _parse(self, overrides: Sequence[str]) -> list[Any]:
        parser = OverridesParser.create(config_loader=self.loader)
        return parser.parse_overrides(list(overrides))

    def _run(
        self,
        jobs: list[Job],
        done: set[int],
        directory: Path,
        sweep_id: str | None,
        store: Any,
        settings: Any,
        gate_decision: str,
    ) -> tuple[list[tuple[Any, bool]], int]:
        """Outcomes of the jobs, each with whether it is a gate, and how many jobs were left undone."""
        from hydra_plugins.mlff_exp_sweeper.launching import launch
        from mlff_exp.cli import GuardedLoader
        from mlff_exp.common import hydra_override, progress_bar
        from mlff_exp.results import label
        from mlff_exp.runs import fill_cache

        # One at a time where jobs would run in turn anyway, so that the bar moves; a cluster gets a whole stage.
        local = isinstance(self.launcher, BasicLauncher)
        started, budget_s = time.monotonic(), settings.budget_s
        if settings.compile_ahead and local:
            todo = {number: job for number, job in enumerate(jobs) if number not in done and job.unavailable is None}
            fill_cache({f"run {n}, {' '.join(job.overrides)}": job.config for n, job in todo.items()}, budget_s)
        outcomes: list[tuple[Any, bool]] = []
        with progress_bar(total=len(jobs), desc="runs", unit="run") as bar:
            index = 0
            while index < len(jobs):
                first, end = jobs[index], index + 1
                if index in done:
                    outcomes.append((self._recorded(directory / str(index), sweep_id, store), first.gate))
                elif first.unavailable is not None:
                    outcomes.append((self._skip(first, index, directory, sweep_id, store), False))
                elif budget_s is not None and time.monotonic() - started > budget_s:
                    return outcomes, len(jobs) - len(outcomes)
                else:
                    while not local and end < len(jobs) and end not in done and jobs[end].stage == first.stage:
                        end += 1
                    bar.set_postfix_str(label(first.resolved))
                    own = [f"sweep.id={sweep_id or 'null'}", f"sweep.gate_decision={gate_decision}"]
                    own.append(hydra_override("hydra.sweep.dir", directory))
                    if isinstance(self.loader, GuardedLoader):  # which refuses these words from anybody else
                        self.loader.vouch(sweep_id, gate_decision, own[-1])
                    launched = [[*job.overrides, *own, _varied(job)] for job in jobs[index:end]]
                    for number, came_to in enumerate(launch(self.launcher, launched, index), index):
                        if isinstance(came_to, Exception):
                            came_to = self._failed(jobs[number], number, came_to, directory, sweep_id, store)
                        outcomes.append((came_to, jobs[number].gate))
                bar.update(end - index)
                index = end
                last = index == len(jobs) or jobs[index].stage != jobs[index - 1].stage
                decisions = {outcome.decision for outcome, gate in outcomes if gate}
                if last and "NO-GO" in decisions:
                    print("NO-GO: the stages after the gate are not run")
                    break
                if last and None in decisions:
                    print("no verdict: the stages after the gate are not run")
                    return outcomes, len(jobs) - len(outcomes)
                if last and decisions == {"GO"}:
                    gate_decision = "GO"
        return outcomes, 0

    @staticmethod
    def _recorded(run_directory: Path, sweep_id: str | None, store: Any) -> Any:
        from mlff_exp.results import RunResult
        from mlff_exp.runs import Outcome
        from mlff_exp.tracking import record_run

        if store is not None:
            record_run(store, run_directory, sweep_id)  # only if it was killed before that
        return Outcome.of(RunResult.load(run_directory), run_directory)

    def _skip(self, job: Job, number: int, directory: Path, sweep_id: str | None, store: Any) -> Any:
        from mlff_exp.results import Failure, RunResult

        failure = Failure("unavailable", job.unavailable or "")
        result = RunResult(config=job.resolved, status="SKIPPED", failure=failure)
        return self._record(job, result, directory / str(number), sweep_id, store)

    def _failed(
        self, job: Job, number: int, error: Exception, directory: Path, sweep_id: str | None, store: Any
    ) -> Any:
        """The outcome of a job that returned none: it was refused where it was to run, raised, or was lost."""
        from mlff_exp.common import mask_secrets
        from mlff_exp.config import UnavailableError
        from mlff_exp.results import RESULT_FILE, Failure, RunResult
        from mlff_exp.runs import TRACEBACK_FILE

        run_directory = directory / str(number)
        if (run_directory / RESULT_FILE).is_file():  # lost after its end
            return self._recorded(run_directory, sweep_id, store)
        run_directory.mkdir(parents=True, exist_ok=True)
        (run_directory / TRACEBACK_FILE).write_text(
            mask_secrets("".join(traceback.format_exception(error))), encoding="utf-8"
        )
        unavailable = isinstance(error, UnavailableError)
        result = RunResult(
            config=job.resolved,
            # A gate must not be passed by: without a verdict it has failed.
            status="SKIPPED" if unavailable and not job.gate else "FAILED",
            failure=Failure("unavailable" if unavailable else type(error).__name__, mask_secrets(str(error))),
            artifacts=(TRACEBACK_FILE,),
        )
        return self._record(job, result, run_directory, sweep_id, store)

    def _record(self, job: Job, result: Any, run_directory: Path, sweep_id: str | None, store: Any) -> Any:
        """Leave what a run would have left."""
        from mlff_exp.runs import Outcome
        from mlff_exp.tracking import (
            CONFIG_FILE,
            record_run,
        )

        run_directory.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(job.resolved), run_directory / CONFIG_FILE)
        result.save(run_directory)
        if store is not None:
            record_run(store, run_directory, sweep_id)
        return Outcome.of(result, run_directory)
