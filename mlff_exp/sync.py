"""Commands that bring results into a store later, and a store to another place."""

from __future__ import annotations

import argparse
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import NoReturn

from filelock import FileLock

from mlff_exp import bars, command, tracking
from mlff_exp.config import ConfigError, Tracking, masked
from mlff_exp.outcome import EXIT_FAILED, EXIT_REFUSED
from mlff_exp.result import RESULT_FILE, ResultError
from mlff_exp.tracking.address import DATABASE_FILE, expanded
from mlff_exp.version import add_version

# Where MLflow's database keeps absolute addresses of artifacts.
ADDRESSES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"))


def sync(root: Path, where: Tracking, failed: Callable[[str], None] = tracking.say) -> list[str]:
    """Upload every finished run below ``root`` that is not in the store yet; returns the new run ids.

    Jobs of one sweep directory become children of one parent run. A sweep that could not tell its store how it ended
    is ended. What can't be uploaded does not keep the others from it.

    Args:
        root: a run's or sweep's directory, or any directory above them.
        where: the store.
        failed: called with a line for each run or sweep that can't be uploaded.

    Raises:
        ConfigError: the store can't be opened.
        MlflowException: it was lost on the way.
        OSError: the disk is full.
    """
    finished = [path.parent for path in sorted(root.rglob(RESULT_FILE))]
    # Opening the store uploads what was under way when its process ended; it counts as well.
    before = {directory: tracking.uploaded_ids(directory) for directory in finished}
    store = tracking.connect(where)
    assert store is not None, "sync needs a store to upload to"
    waiting = [directory for directory in finished if not tracking.is_uploaded(store, directory)]
    recovered = {directory for directory in finished if tracking.uploaded_ids(directory) != before[directory]}
    uploaded = [tracking.uploaded_ids(directory)[-1] for directory in finished if directory in recovered]
    with bars.bar(total=len(waiting), desc="runs", unit="run") as bar:
        for above, directories in groupby(waiting, key=lambda directory: directory.parent):
            with _failing(store, above, failed), _parent(store, above) as parent:
                for directory in directories:
                    with _failing(store, directory, failed):
                        uploaded.append(tracking.log_run(store, directory, parent))
                    bar.update()
    for path in sorted(root.rglob(tracking.SWEEP_FILE)):
        with _failing(store, path.parent, failed):
            tracking.end_late(store, path.parent)
    return uploaded


def _parent(store: tracking.Store, above: Path) -> AbstractContextManager[str | None]:
    """The parent run of the runs in a directory; none if that is no sweep's."""
    is_sweep = (above / tracking.SWEEP_FILE).is_file()
    return tracking.for_upload(store, above) if is_sweep else nullcontext()


@contextmanager
def _failing(store: tracking.Store, directory: Path, failed: Callable[[str], None]) -> Iterator[None]:
    """Report what is wrong with one directory; where the store is lost, that is no fault of the directory."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except ResultError as error:
        failed(str(error))
    except MlflowException as error:
        if not tracking.answers(store):
            raise
        failed(f"{directory}: MLflow refuses it: {tracking.first_line(error)}")


def relocate(directory: Path) -> int:
    """Make a store that was moved find its artifacts again; returns how many addresses were changed.

    Args:
        directory: of the store, where it is now.

    Raises:
        ConfigError: there is no store.
    """
    directory = expanded(str(directory)).resolve()
    database = directory / DATABASE_FILE
    if not database.is_file():
        raise ConfigError(f"{directory} holds no {DATABASE_FILE}")
    now = (directory / "artifacts").as_uri()
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
                # Not LIKE, to which the % of an address means something.
                cursor = connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (now, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )
                changed += cursor.rowcount
    return changed


@command.boundary("mlff-exp-sync")
def sync_main() -> None:
    """Command line of ``mlff-exp-sync``."""
    parser = argparse.ArgumentParser(
        prog="mlff-exp-sync",
        description="Upload runs to MLflow, once to each store: those of tracking=offline, those whose server was "
        "lost, and those that another store has.",
        epilog="Ends with 0 if all are there, 1 if some could not be uploaded, 2 if the store can't be opened.",
    )
    add_version(parser)
    parser.add_argument("directory", type=Path, help="a run's or sweep's directory, or any directory above them")
    parser.add_argument("--tracking", choices=("local", "server"), default="local", help="where to (default: local)")
    parser.add_argument("--mlruns", default="mlruns", help="directory of the local store (default: mlruns)")
    parser.add_argument("--experiment", default=Tracking.experiment, help="in MLflow (default: %(default)s)")
    arguments = parser.parse_args()
    if not arguments.directory.is_dir():
        parser.error(f"{arguments.directory} is not a directory")
    from mlflow.exceptions import MlflowException

    where = Tracking(name=arguments.tracking, directory=arguments.mlruns, experiment=arguments.experiment)
    failures: list[str] = []

    def failed(line: str) -> None:
        failures.append(line)
        bars.write(f"mlff-exp-sync: {masked(line)}")

    try:
        uploaded = sync(arguments.directory, where, failed)
    except ConfigError as error:
        _end(str(error), EXIT_REFUSED)
    except MlflowException as error:
        _end(f"the store was lost: {tracking.first_line(error)}; the same command goes on later", EXIT_FAILED)
    print(f"{len(uploaded)} runs uploaded")
    if failures:
        _end(f"{len(failures)} could not be uploaded", EXIT_FAILED)


def _end(message: str, code: int) -> NoReturn:
    print(f"mlff-exp-sync: {masked(message)}", file=sys.stderr)
    sys.exit(code)


@command.boundary("mlff-exp-relocate")
def relocate_main() -> None:
    """Command line of ``mlff-exp-relocate``."""
    parser = argparse.ArgumentParser(
        prog="mlff-exp-relocate",
        description="After mlruns/ was moved, to another machine perhaps: make its runs find their artifacts again.",
    )
    add_version(parser)
    parser.add_argument(
        "mlruns", type=Path, nargs="?", default=Path("mlruns"), help="where it is now (default: mlruns)"
    )
    try:
        print(f"{relocate(parser.parse_args().mlruns)} addresses changed")
    except ConfigError as error:
        print(f"mlff-exp-relocate: {error}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)
