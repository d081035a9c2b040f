"""The command ``mlff-exp``: configuration → task in a fresh process → result on disk → MLflow."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mlff_exp import config as schema
from mlff_exp import tracking, worker
from mlff_exp.config import ConfigError
from mlff_exp.disk import DISK_ERRORS, room
from mlff_exp.outcome import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_REFUSED, EXIT_TERMINATED, Outcome, exit_code
from mlff_exp.report import line
from mlff_exp.result import RESULT_FILE, ResultError

T = TypeVar("T")
CHECKOUT = Path(__file__).resolve().parent.parent
CONF = CHECKOUT / "conf" if (CHECKOUT / "pyproject.toml").is_file() else Path(__file__).resolve().parent / "conf"

schema.register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def run(composed: DictConfig) -> Outcome:
    """One job: check, run, record. A sweep collects the outcomes; a single run exits with its own."""
    job = HydraConfig.get()
    directory = Path(job.runtime.output_dir)
    config = schema.parse(composed)
    schema.refuse_ignored(config, job.overrides.task)
    single = job.mode is RunMode.RUN
    if single:  # of a sweep, its other jobs may take a word that this one does not
        schema.refuse_unused([(config, job.overrides.task)])
    config = config.on_this_machine()
    # Should this run leave nothing, that result would be taken for its own.
    if (directory / RESULT_FILE).is_file():
        raise ConfigError(f"{directory / RESULT_FILE} is the result of another run: choose a directory without one")
    # A sweep without a parent run is not recorded while it goes on.
    recorded = single or config.sweep.id is not None
    store = _reached(lambda: tracking.connect(config.tracking), single) if recorded else None

    resolved = schema.save_resolved(composed, directory)
    resume = getattr(config.task, "resume", None)
    if resume is not None:
        config.task.resume = str(tracking.directory_of(store, "task.resume", resume))
    live = None
    if store is not None:
        live = _reached(lambda: tracking.Live(store, directory, resolved, config.sweep.id), single)
    try:
        result = worker.run_task(config, resolved, directory, live)
    finally:
        # An interrupted run has a result as well.
        if store is not None and (directory / RESULT_FILE).is_file():
            tracking.record(store, directory, config.sweep.id)
    outcome = Outcome.of(result, directory)
    if single:
        if result.failure is None:
            print(line(result))
        print(outcome.summary(config.tracking))
        raise SystemExit(EXIT_REFUSED if outcome.refused else exit_code([outcome]))
    return outcome


def _reached(ask: Callable[[], T], single: bool) -> T | None:
    """What a store answers.

    Raises:
        ConfigError: it does not, which ends a single run before any work; one of a sweep goes on without.
    """
    try:
        return ask()
    except ConfigError as error:
        if single:
            raise
        print(f"mlff-exp: not in MLflow yet: {schema.masked(str(error))}", file=sys.stderr)
        print("mlff-exp: later: mlff-exp-sync", file=sys.stderr)
        return None


def main() -> None:
    """Entry point; a refused configuration, or a result that cannot be read, ends with exit code 2, a full disk with 1.

    The traceback of either is printed only where HYDRA_FULL_ERROR=1 asks for it.
    """
    asked = os.environ.get("HYDRA_FULL_ERROR")
    # Hydra would print tracebacks itself and exit with 1; this hands the exceptions to us.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        with worker.terminable():
            run()
    except (ConfigError, ResultError, HydraException, OmegaConfBaseException) as error:
        _end(schema.explain(error), EXIT_REFUSED, asked)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        path = Path(error.filename or Path.cwd())
        where = f"{path}; {room(path if path.is_dir() else path.parent)}"
        _end(f"{error.strerror}: {where}; what had finished is kept", EXIT_FAILED, asked)
    except worker.Terminated:
        print("\nmlff-exp: terminated; what had finished is recorded", file=sys.stderr)  # below a progress bar
        sys.exit(EXIT_TERMINATED)
    except KeyboardInterrupt:
        print("\nmlff-exp: interrupted; what had finished is recorded", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    finally:
        # What is started from this process later is to behave as if this had not been.
        if asked is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = asked


def _end(message: str, code: int, asked: str | None) -> NoReturn:
    """Exit with a message, below the traceback of the current exception if that was asked for."""
    if asked == "1":
        print(schema.masked(traceback.format_exc()), file=sys.stderr)
    print(f"mlff-exp: {schema.masked(message)}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
