"""A sweeper for experiments of several stages, each a product of overrides.

Every job is composed and checked before the first one runs. A stage marked ``gate`` ends the experiment if it says
NO-GO. A plain ``-m`` sweep is an experiment of one stage.
"""

# Without postponed annotations: Hydra executes plugins before it makes them known to Python, and dataclasses
# can't resolve such annotations then.
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
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
    unavailable: str | None


class StagedSweeper(Sweeper):
    """See the module."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
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
        from mlff_exp import report, tracking
        from mlff_exp.config import parse
        from mlff_exp.outcome import exit_code, where

        master = parse(self.config_without_hydra(self.config))
        jobs = self._plan(arguments, master.sweep.stages)
        directory = Path(self.config.hydra.sweep.dir).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, directory / "multirun.yaml")

        store = tracking.connect(master.tracking)
        with tracking.sweep(store, master.sweep.name, directory) as sweep_id:
            outcomes = self._run(jobs, directory, sweep_id, store)
            page = report.write(directory, master.sweep.name)
        print(f"report: {page}")
        print(where(master.tracking))
        # The verdict of an optional row is only a row; that of a gate is the experiment's.
        code = exit_code(outcome for outcome, gate in outcomes if gate or outcome.failed)
        for outcome, _ in outcomes:
            if outcome.failed:
                print(f"{outcome.status}: {outcome.label}: {outcome.failure_message}", file=sys.stderr)
        sys.exit(code)

    @staticmethod
    def config_without_hydra(config: DictConfig) -> DictConfig:
        """The part of a composed configuration that is ours."""
        ours = deepcopy(config)
        with read_write(ours), open_dict(ours):
            del ours["hydra"]
        return ours

    def _plan(self, arguments: list[str], stages: list[Any]) -> list[Job]:
        from mlff_exp.config import Stage, UnavailableError, parse, refuse_ignored

        given = self._parse([f"{key}={value}" for key, value in self.params.items()] + arguments)
        keys = {override.get_key_element() for override in given}
        jobs = []
        for stage in stages or [Stage(name="sweep")]:
            # What was given on the command line wins over what the stage says.
            own = [override for override in self._parse(stage.overrides) if override.get_key_element() not in keys]
            for overrides in BasicSweeper.split_arguments(given + own, max_batch_size=None)[0]:
                config = parse(self.config_without_hydra(self.loader.load_sweep_config(self.config, overrides)))
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
                jobs.append(Job(stage.name, stage.gate, overrides, unavailable))
        return jobs

    def _parse(self, overrides: Sequence[str]) -> list[Any]:
        parser = OverridesParser.create(config_loader=self.loader)
        return parser.parse_overrides(list(overrides))

    def _run(self, jobs: list[Job], directory: Path, sweep_id: str | None, store: Any) -> list[tuple[Any, bool]]:
        from tqdm import tqdm

        # One at a time where jobs would run in turn anyway, so that the bar moves; a cluster gets a whole stage.
        local = isinstance(self.launcher, BasicLauncher)
        outcomes: list[tuple[Any, bool]] = []
        with tqdm(total=len(jobs), desc="runs", unit="run") as bar:
            index = 0
            while index < len(jobs):
                end = index + 1
                while not local and end < len(jobs) and jobs[end].stage == jobs[index].stage:
                    end += 1
                batch = jobs[index:end]
                bar.set_postfix_str(f"{batch[0].stage}: {' '.join(batch[0].overrides)}"[-90:])
                if batch[0].unavailable is not None:
                    outcomes.append((self._skip(batch[0], index, directory, sweep_id, store), False))
                else:
                    launched = [[*job.overrides, f"sweep.id={sweep_id or 'null'}"] for job in batch]
                    for job, returned in zip(batch, self.launcher.launch(launched, initial_job_idx=index), strict=True):
                        outcomes.append((returned.return_value, job.gate))
                bar.update(len(batch))
                index = end
                last = index == len(jobs) or jobs[index].stage != jobs[index - 1].stage
                if last and any(gate and outcome.decision == "NO-GO" for outcome, gate in outcomes):
                    print("NO-GO: the stages after the gate are not run")
                    break
        return outcomes

    def _skip(self, job: Job, number: int, directory: Path, sweep_id: str | None, store: Any) -> Any:
        from mlff_exp import tracking
        from mlff_exp.config import save_resolved
        from mlff_exp.outcome import Outcome
        from mlff_exp.result import Failure, RunResult

        composed = self.loader.load_sweep_config(self.config, job.overrides)
        run_directory = directory / str(number)
        run_directory.mkdir(parents=True)
        resolved = save_resolved(self.config_without_hydra(composed), run_directory)
        failure = Failure("unavailable", job.unavailable or "")
        result = RunResult(config=resolved, status="SKIPPED", failure=failure)
        result.save(run_directory)
        if store is not None:
            tracking.log_run(store, run_directory, sweep_id)
        return Outcome.of(result, run_directory)
