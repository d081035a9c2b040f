"""The command ``mlff-exp``: configuration → task in a fresh process → result on disk → MLflow."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import TextIO, TypeVar, cast

import hydra
import hydra._internal.hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mlff_exp.cli.boundary import command_boundary, end_command
from mlff_exp.cli.checked import loader_of_command
from mlff_exp.cli.errors import Ended, composing_errors, ending, explain_error
from mlff_exp.cli.flags import flags, flags_first, is_job, parser
from mlff_exp.cli.overrides import refuse_control_characters
from mlff_exp.cli.schemas import register_schemas
from mlff_exp.cli.words import clear_message, refuse_command_line, refuse_package
from mlff_exp.common import (
    MaskedStream,
    excepthook,
    interrupts_postponed,
    learn_overrides,
    mask_logs,
    mask_secrets,
    replace_attribute,
)
from mlff_exp.config import ConfigError, parse_config, refuse_ignored, rename_word
from mlff_exp.measure import LoadMonitor
from mlff_exp.report import describe_result
from mlff_exp.results import PROGRESS_FILE, RESULT_FILE, ResultError
from mlff_exp.runs import (
    EXIT_REFUSED,
    TRACEBACK_FILE,
    Outcome,
    exit_code,
    recorded_if_interrupted,
    refuse_moved,
    refuse_tilde,
    refuse_used_by_run,
    run_task,
)
from mlff_exp.tasks import TASKS, check_engines, on_this_machine, refuse_unused, save_resolved
from mlff_exp.tracking import CONFIG_FILE, OPENED_FILE, ActiveRun, find_run_directory, open_store, record_run

T = TypeVar("T")
CHECKOUT = Path(__file__).resolve().parent.parent.parent
CONF = CHECKOUT / "conf" if (CHECKOUT / "pyproject.toml").is_file() else Path(__file__).resolve().parent.parent / "conf"

CONFIG_NAME = "config"
# Files that a run writes before it is known whether it can do its work.
BEFORE_WORK = (RESULT_FILE, PROGRESS_FILE, TRACEBACK_FILE, CONFIG_FILE, OPENED_FILE, "run.log")

register_schemas()


def run() -> None:
    """Check the command line, and let Hydra run the job or the sweep. A refused single run leaves no files."""
    given = flags(sys.argv[1:])
    if not is_job(given):
        refuse_package(given, CONF, CONFIG_NAME)
        with composing_errors():
            job()
        return
    asked = refuse_command_line(given, CONF, CONFIG_NAME)
    refuse_moved(asked.hydra, single=not asked.several)
    if asked.several:
        job()
        return
    new = [name for name in BEFORE_WORK if not (asked.directory / name).exists()]
    try:
        with composing_errors():  # errors of the job itself pass through as `Ended`
            job()
    except Ended as ended:
        if isinstance(ended.error, ConfigError):
            clear_message(ended.directory, asked.kept, new)
        raise ended.error from ended.error.__cause__


@hydra.main(version_base="1.3", config_path=str(CONF), config_name=CONFIG_NAME)
def job(composed: DictConfig) -> Outcome:
    """Check, run and record one job. A sweep collects the outcomes; a single run exits with the code of its own."""
    mask_logs()
    hydra_job = HydraConfig.get()
    directory = Path(hydra_job.runtime.output_dir)
    if hydra_job.mode is not RunMode.RUN:
        return _recorded(composed, hydra_job.overrides.task, directory, single=False)
    with ending(directory):
        outcome = _recorded(composed, hydra_job.overrides.task, directory, single=True)
    raise SystemExit(exit_code([outcome]))


def _recorded(composed: DictConfig, overrides: Sequence[str], directory: Path, *, single: bool) -> Outcome:
    """Run a job and record it.

    Raises:
        ConfigError: the configuration is wrong, or the task of a single run refused its input before any work.
    """
    config = parse_config(composed)
    refuse_ignored(config, overrides)
    if single:  # in a sweep, another job may use a word that this job does not use
        refuse_unused([(config, overrides)])
    check_engines(config)
    config = on_this_machine(config)
    load = LoadMonitor() if single and TASKS[config.task.name].is_timed else None
    # If this run left no result, the one that is there would be taken for its own.
    if (directory / RESULT_FILE).is_file():
        raise ConfigError(f"{directory / RESULT_FILE} is the result of another run: choose a directory without one")
    if single:  # a sweep checks this for all its jobs
        refuse_used_by_run(directory, getattr(config.task, "resume", None))
    # A sweep without a parent run is not recorded while it goes on.
    recorded = single or config.sweep.id is not None
    store = _reached(lambda: open_store(config.tracking), single) if recorded else None

    resolved = save_resolved(composed, directory)
    resume = getattr(config.task, "resume", None)
    if resume is not None:
        found = find_run_directory(store, "task.resume", resume)
        config = replace(config, task=replace(config.task, resume=str(found)))
    if load is not None:
        load.warn(config.device)
    active, refused = None, False
    try:
        with recorded_if_interrupted(resolved, directory):
            if store is not None:
                with interrupts_postponed():  # an interrupt here would leave an open MLflow run that nobody closes
                    active = _reached(lambda: ActiveRun(store, directory, resolved, config.sweep.id), single)
            result = run_task(config, resolved, directory, active)
            refused = single and Outcome.of(result, directory).refused
    finally:
        if refused and active is not None:
            active.discard()
        # An interrupted run has a result as well.
        elif store is not None and (directory / RESULT_FILE).is_file():
            record_run(store, directory, config.sweep.id)
    if refused:
        assert result.failure is not None, "it was refused"
        raise ConfigError(result.failure.message)
    outcome = Outcome.of(result, directory)
    if single:
        if result.failure is None:
            print(mask_secrets(describe_result(result)))
        print(mask_secrets(outcome.summary(config.tracking)))
    return outcome


def _reached(ask: Callable[[], T], single: bool) -> T | None:
    """Call a function that needs an answer of the store.

    Returns:
        The result of the function; None if the store of a job of a sweep does not answer.

    Raises:
        ConfigError: the store of a single run does not answer, which ends the run before any work.
    """
    try:
        return ask()
    except ConfigError as error:
        if single:
            raise
        print(f"mlff-exp: not in MLflow yet: {mask_secrets(str(error))}", file=sys.stderr)
        print("mlff-exp: later: mlff-exp-sync", file=sys.stderr)
        return None


def main() -> None:
    """Run the command. A refused configuration, or a result that can't be read, ends with exit code 2.

    Their traceback is printed only if HYDRA_FULL_ERROR=1 is set.
    """
    with command_boundary("mlff-exp"):
        try:
            refuse_control_characters(sys.argv[1:])
            # conf/targets is no group of options, and Hydra would take it for one.
            sys.argv[1:] = [rename_word(re.sub(r"^targets=", "sweep.targets=", word)) for word in sys.argv[1:]]
            refuse_tilde(sys.argv[1:])
            if "${" in str(Path.cwd()):
                raise ConfigError(
                    f"{Path.cwd()}: Hydra takes the ${{ in this directory's name for a reference: rename it"
                )
            sys.argv[1:] = flags_first(sys.argv[1:])
            with _errors_handed_over():
                run()
        except (ConfigError, ResultError, HydraException, OmegaConfBaseException) as error:
            end_command("mlff-exp", explain_error(error), EXIT_REFUSED)


@contextmanager
def _errors_handed_over() -> Iterator[None]:
    """Let Hydra raise its errors instead of printing tracebacks and ending with exit code 1.

    In the block secrets are masked in everything that is printed, and the guard judges every configuration.
    """
    asked = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.excepthook = excepthook
    try:
        with redirect_stderr(None if sys.stderr is None else cast(TextIO, MaskedStream(sys.stderr))):
            said = _said()
            learn_overrides(said)
            with replace_attribute(hydra._internal.hydra, "ConfigLoaderImpl", loader_of_command(said)):
                yield
    finally:
        # Restored for processes that are started from this one later.
        if asked is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = asked


def _said() -> Sequence[str]:
    """Return the overrides on the command line, or on the line that the shell completes."""
    given, _ = parser().parse_known_args()  # `run` refuses wrong flags
    if given.shell_completion:
        return [word for word in os.environ.get("COMP_LINE", "").split() if "=" in word]
    return list(given.overrides)


if __name__ == "__main__":
    main()
