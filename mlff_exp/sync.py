"""Commands that bring results into a store later, and a store to another place."""

from __future__ import annotations

import argparse
import sqlite3
import sys
from pathlib import Path

from filelock import FileLock

from mlff_exp import tracking
from mlff_exp.config import ConfigError, Tracking, masked
from mlff_exp.result import RESULT_FILE

# Where MLflow's database keeps absolute addresses of artifacts.
ADDRESSES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"))


def sync(root: Path, where: Tracking) -> list[str]:
    """Upload every finished run below ``root`` that was not uploaded yet; returns the new run ids.

    Jobs of one sweep directory become children of one parent run.
    """
    finished = [path.parent for path in sorted(root.rglob(RESULT_FILE))]
    waiting = [directory for directory in finished if not (directory / tracking.UPLOADED_FILE).is_file()]
    # Opening the store uploads what was under way when its process ended; it counts as well.
    store = tracking.connect(where)
    assert store is not None, "sync needs a store to upload to"
    uploaded = []
    parents: dict[Path, str | None] = {}
    for directory in waiting:
        sweep_directory = directory.parent
        if (sweep_directory / tracking.SWEEP_FILE).is_file() and sweep_directory not in parents:
            with tracking.sweep(store, sweep_directory.name, sweep_directory) as parents[sweep_directory]:
                pass  # its reports go with it
        uploaded.append(tracking.log_run(store, directory, parents.get(sweep_directory)))
    return uploaded


def relocate(directory: Path) -> int:
    """Make a store that was moved find its artifacts again; returns how many addresses were changed.

    Args:
        directory: of the store, where it is now.

    Raises:
        ConfigError: there is no store.
    """
    database = directory.resolve() / "mlflow.db"
    if not database.is_file():
        raise ConfigError(f"{directory} holds no mlflow.db")
    now = (directory.resolve() / "artifacts").as_uri()
    changed = 0
    with FileLock(directory / "mlflow.lock"), sqlite3.connect(database) as connection:
        # Where artifacts were before, by the experiments that we made.
        before = {
            address
            for (address,) in connection.execute("SELECT artifact_location FROM experiments")
            if address.startswith("file://") and address.endswith("/artifacts") and address != now
        }
        for table, column in ADDRESSES:
            for old in before:
                cursor = connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR {column} LIKE ?",
                    (now, len(old) + 1, old, f"{old}/%"),
                )
                changed += cursor.rowcount
    return changed


def sync_main() -> None:
    """Command line of ``mlff-exp-sync``."""
    parser = argparse.ArgumentParser(
        prog="mlff-exp-sync",
        description="Upload runs to MLflow, each once: those of tracking=offline, and those whose server was lost.",
    )
    parser.add_argument("directory", type=Path, help="a run's or sweep's directory, or any directory above them")
    parser.add_argument("--tracking", choices=("local", "server"), default="local", help="where to (default: local)")
    parser.add_argument("--mlruns", default="mlruns", help="directory of the local store (default: mlruns)")
    parser.add_argument("--experiment", default=Tracking.experiment, help="in MLflow (default: %(default)s)")
    arguments = parser.parse_args()
    if not arguments.directory.is_dir():
        parser.error(f"{arguments.directory} is not a directory")
    from mlflow.exceptions import MlflowException

    where = Tracking(name=arguments.tracking, directory=arguments.mlruns, experiment=arguments.experiment)
    try:
        uploaded = sync(arguments.directory, where)
    except (ConfigError, ValueError, OSError, MlflowException) as error:
        sys.exit(f"mlff-exp-sync: {masked(str(error))}")
    print(f"{len(uploaded)} runs uploaded")


def relocate_main() -> None:
    """Command line of ``mlff-exp-relocate``."""
    parser = argparse.ArgumentParser(
        prog="mlff-exp-relocate",
        description="After mlruns/ was moved, to another machine perhaps: make its runs find their artifacts again.",
    )
    parser.add_argument(
        "mlruns", type=Path, nargs="?", default=Path("mlruns"), help="where it is now (default: mlruns)"
    )
    try:
        print(f"{relocate(parser.parse_args().mlruns)} addresses changed")
    except ConfigError as error:
        sys.exit(f"mlff-exp-relocate: {error}")
