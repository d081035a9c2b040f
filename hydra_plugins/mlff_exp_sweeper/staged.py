"""A Hydra sweeper for experiments of several stages; `mlff_exp.runs` plans and runs them."""

# This module has no postponed annotations: Hydra executes a plugin before Python knows the module, and dataclasses
# can't resolve such annotations then. It imports mlff_exp late, because Hydra imports every plugin at its start.
import sys
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class StagedSweeperConfig:
    """Options of the sweeper, ``hydra.sweeper``; ``params`` means the same as in Hydra's basic sweeper."""

    _target_: str = "hydra_plugins.mlff_exp_sweeper.staged.StagedSweeper"
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="staged", node=StagedSweeperConfig, provider="mlff_exp")


class StagedSweeper(Sweeper):
    """The sweeper by which Hydra runs the sweeps of this project.

    Args:
        params: overrides of every job, by key.
    """

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self.params = params or {}
        self.host: Any = None  # a HydraHost

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Prepare the sweep; Hydra calls this before `sweep`."""
        from mlff_exp.cli import HydraHost, place_sweep

        roots = place_sweep(config)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.host = HydraHost(hydra_context.config_loader, config, launcher, self.params, roots)

    def sweep(self, arguments: list[str]) -> None:
        """Run all jobs, write the report, and exit with the code of the sweep.

        Raises:
            ConfigError: a job is wrong; no job has run.
        """
        from mlff_exp.cli import sweep

        sys.exit(sweep(self.host, arguments))
