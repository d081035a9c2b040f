"""Run tasks in this process, without the seconds that a command takes to start."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from mlff_exp.cli.schemas import register_schemas
from mlff_exp.config.config import Config, parse_config
from mlff_exp.results.metrics import SERIES, find_metric
from mlff_exp.results.result import RunResult
from mlff_exp.tasks.machine import on_this_machine
from mlff_exp.tasks.recorded import resolve_config

CONF = Path(__file__).resolve().parent.parent.parent / "conf"


def configured(*overrides: str) -> Config:
    """Return the configuration that these words of the command line make."""
    register_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return parse_config(compose("config", overrides=list(overrides)))


def resolved_of(*overrides: str) -> dict[str, Any]:
    """Return the configuration that is recorded for these words of the command line."""
    register_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve_config(compose("config", overrides=list(overrides)))


def run_here(directory: Path, *overrides: str) -> RunResult:
    """Run the task of a configuration and return its result; errors are raised."""
    config = on_this_machine(configured(*overrides))
    directory.mkdir(parents=True, exist_ok=True)
    result: RunResult = import_module(f"mlff_exp.tasks.{config.task.name}").run(config, directory)
    return result


def undocumented(result: RunResult) -> set[str]:
    """Return the metrics of a result that are not in the registry of metrics."""
    names = {name for name in result.metrics if find_metric(name) is None}
    series = {name for name in result.series if name.partition("/")[0] not in SERIES and find_metric(name) is None}
    return names | series
