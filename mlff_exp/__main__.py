"""The command ``mlff-exp``: configuration → task in a fresh process → result on disk → MLflow."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mlff_exp import config as schema
from mlff_exp import tracking, worker
from mlff_exp.config import Config, ConfigError
from mlff_exp.outcome import EXIT_FAILED, EXIT_REFUSED, Outcome, exit_code
from mlff_exp.report import row
from mlff_exp.result import RESULT_FILE, room
from mlff_exp.tracking import Store

CHECKOUT = Path(__file__).resolve().parent.parent
CONF = CHECKOUT / "conf" if (CHECKOUT / "pyproject.toml").is_file() else Path(__file__).resolve().parent / "conf"

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)

schema.register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def run(composed: DictConfig) -> Outcome:
    """One job: check, run, record. A sweep collects the outcomes; a single run exits with its own."""
    job = HydraConfig.get()
    directory = Path(job.runtime.output_dir)
    config = schema.parse(composed)
    schema.refuse_ignored(config, job.overrides.task)
    config = config.on_this_machine()
    single = job.mode is RunMode.RUN
    store = _store(config, single)

    resolved = schema.save_resolved(composed, directory)
    resume = getattr(config.task, "resume", None)
    if resume is not None:
        config.task.resume = str(tracking.directory_of(store, "task.resume", resume))
    live = None if store is None else tracking.Live(store, directory, resolved, config.sweep.id)
    try:
        result = worker.run_task(config, resolved, directory, live)
    finally:
        # An interrupted run has a result as well.
        if store is not None and (directory / RESULT_FILE).is_file():
            tracking.record(store, directory, config.sweep.id)
    outcome = Outcome.of(result, directory)
    if single:
        print("  ".join(cell for cell in row(result).cells if cell))
        print(outcome.summary(config.tracking))
        raise SystemExit(EXIT_REFUSED if outcome.refused else exit_code([outcome]))
    return outcome


def _store(config: Config, single: bool) -> Store | None:
    """Where to record a run while it goes on.

    Raises:
        ConfigError: there is no such place, which ends a single run before any work; one of a sweep goes on without.
    """
    if not single and config.sweep.id is None:
        return None
    try:
        return tracking.connect(config.tracking)
    except ConfigError as error:
        if single:
            raise
        print(f"mlff-exp: not in MLflow yet: {schema.masked(str(error))}", file=sys.stderr)
        print("mlff-exp: later: mlff-exp-sync", file=sys.stderr)
        return None


def main() -> None:
    """Entry point; a refused configuration ends with exit code 2, a full disk with 1, without a traceback."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra would print tracebacks itself and exit with 1; this hands the exceptions to us.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        run()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        if wants_traceback:
            raise
        print(f"mlff-exp: {schema.masked(schema.explain(error))}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)
    except OSError as error:
        if wants_traceback or error.errno not in DISK_ERRORS:
            raise
        path = Path(error.filename or Path.cwd())
        where = f"{path}; {room(path if path.is_dir() else path.parent)}"
        print(f"mlff-exp: {error.strerror}: {where}; what had finished is kept", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        print("mlff-exp: interrupted; what had finished is recorded", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
