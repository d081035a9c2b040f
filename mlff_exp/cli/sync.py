"""The command ``mlff-exp-sync``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from mlff_exp.cli.boundary import OneLineParser, command_boundary
from mlff_exp.common import add_version, mask_secrets, write_below_bars
from mlff_exp.config import ConfigError, Tracking
from mlff_exp.runs import EXIT_FAILED, EXIT_REFUSED
from mlff_exp.tracking import StoreLostError, sync_runs


@command_boundary("mlff-exp-sync")
def sync_main() -> None:
    """Command line of ``mlff-exp-sync``."""
    parser = OneLineParser(
        prog="mlff-exp-sync",
        description="Upload finished runs to MLflow, each run once to each store: runs of tracking=offline, runs whose "
        "server was lost, and runs that only another store has.",
        epilog="Exit codes: 0 all runs are in the store, 1 some could not be uploaded, 2 the store can't be opened.",
    )
    add_version(parser)
    parser.add_argument("directory", type=Path, help="the directory of a run or a sweep, or any directory above them")
    parser.add_argument("--tracking", choices=("local", "server"), default="local", help="the store (default: local)")
    parser.add_argument("--mlruns", default="mlruns", help="directory of the local store (default: mlruns)")
    parser.add_argument("--experiment", default=Tracking.experiment, help="name in MLflow (default: %(default)s)")
    arguments = parser.parse_args()
    if not arguments.directory.is_dir():
        parser.error(f"{arguments.directory} is not a directory")
    failures: list[str] = []

    def failed(line: str) -> None:
        failures.append(line)
        write_below_bars(f"mlff-exp-sync: {mask_secrets(line)}")

    try:
        where = Tracking(name=arguments.tracking, directory=arguments.mlruns, experiment=arguments.experiment)
        uploaded = sync_runs(arguments.directory, where, failed)
    except ConfigError as error:
        _end(str(error), EXIT_REFUSED)
    except StoreLostError as error:
        _end(f"the store was lost: {error}; the same command goes on later", EXIT_FAILED)
    print(f"{len(uploaded)} runs uploaded")
    if failures:
        _end(f"{len(failures)} could not be uploaded", EXIT_FAILED)


def _end(message: str, code: int) -> NoReturn:
    print(f"mlff-exp-sync: {mask_secrets(message)}", file=sys.stderr)
    sys.exit(code)
