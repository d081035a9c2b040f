"""Handle terminal, signals, full disks and environment the same way for all commands."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from mlff_exp.cli.surroundings import settle_surroundings
from mlff_exp.common import (
    DISK_ERRORS,
    STREAMS,
    HungUp,
    Terminated,
    free_space,
    mask_secrets,
    printable_streams,
    raise_on_signals,
)
from mlff_exp.report import one_line
from mlff_exp.runs import EXIT_FAILED, EXIT_HUNG_UP, EXIT_INTERRUPTED, EXIT_REFUSED, EXIT_TERMINATED

# Errors of the system for a path that can't be read or written.
NO_PLACE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)


@contextlib.contextmanager
def command_boundary(program: str) -> Iterator[None]:
    """Turn signals and errors of the system that end a command into one line and an exit code.

    Exit codes: 1 the disk is full, 2 a directory can't be used, 129 SIGHUP, 130 interrupted, 143 SIGTERM. The traceback
    of an error is printed only if HYDRA_FULL_ERROR=1 is set.

    Args:
        program: name of the command, with which the line begins.
    """
    with printable_streams(), raise_on_signals(for_good=True):
        try:
            try:
                said = settle_surroundings()
            except FileNotFoundError as error:
                end_command(program, str(error), EXIT_REFUSED)
            for change in said:
                print(f"{program}: {change}", file=sys.stderr)
            _refuse_undecodable(program)
            yield
        except OSError as error:
            if error.filename in STREAMS.values():
                end_command(program, f"{error.strerror}: {error.filename}; what had finished is kept", EXIT_FAILED)
            if error.errno in DISK_ERRORS:
                where = ""  # the current directory may be on another disk than what could not be written
                if error.filename is not None:
                    path = Path(error.filename)
                    where = f": {path}; {free_space(path if path.is_dir() else path.parent)}"
                end_command(program, f"{error.strerror}{where}; what had finished is kept", EXIT_FAILED)
            if error.errno not in NO_PLACE or error.filename is None:
                raise
            end_command(program, f"{error.strerror}: {os.fsdecode(error.filename)}", EXIT_REFUSED)
        except KeyboardInterrupt as interrupt:
            code, how = EXIT_INTERRUPTED, "interrupted"
            if isinstance(interrupt, Terminated):
                code, how = EXIT_TERMINATED, "terminated"
            elif isinstance(interrupt, HungUp):
                code, how = EXIT_HUNG_UP, "hung up"
            # The line break puts the message below a progress bar.
            print(f"\n{program}: {how}; what had finished is recorded", file=sys.stderr)
            sys.exit(code)


class OneLineParser(argparse.ArgumentParser):
    """Says in one line what is wrong with the words of a command, and ends with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Exit with a message."""
        self.exit(EXIT_REFUSED, f"{self.prog}: {mask_secrets(one_line(message))}\n")


def end_command(program: str, message: str, code: int) -> NoReturn:
    """Print a message and exit. If HYDRA_FULL_ERROR=1 is set, print the traceback of the current exception first."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        print(mask_secrets(traceback.format_exc()), file=sys.stderr)
    print(f"{program}: {mask_secrets(message)}", file=sys.stderr)
    sys.exit(code)


def _refuse_undecodable(program: str) -> None:
    """Refuse arguments and a current directory that are not UTF-8, because results are written in UTF-8."""
    for name, text in [*(("argument", word) for word in sys.argv[1:]), ("current directory", str(Path.cwd()))]:
        try:
            text.encode()
        except UnicodeEncodeError:
            message = f"the {name} {ascii(os.fsencode(text))[1:]} is not UTF-8: rename it, or use a UTF-8 locale"
            end_command(program, message, EXIT_REFUSED)
