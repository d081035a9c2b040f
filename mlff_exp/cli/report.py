"""The command ``mlff-exp-report``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mlff_exp.cli.boundary import OneLineParser, command_boundary
from mlff_exp.common import add_version, mask_secrets
from mlff_exp.config import ConfigError
from mlff_exp.report import USUAL_TARGETS, load_targets, write_report
from mlff_exp.results import RESULT_FILE, ResultError, run_directories
from mlff_exp.runs import EXIT_FAILED, recorded_sweep_name


@command_boundary("mlff-exp-report")
def report_main() -> None:
    """Command line of ``mlff-exp-report``. It ends with exit code 1 if a result can't be read and is left out."""
    description = "Write the report of a sweep again: report.html and report.md in the sweep's directory."
    words = sweep_parser("mlff-exp-report", description)
    arguments = parsed_sweep(words)
    try:
        targets = load_targets(arguments.targets.split(","))
        written = write_report(arguments.directory, arguments.name, targets=targets)
    except (ConfigError, ResultError) as error:
        words.error(str(error))
    print(f"report: {written.page}")
    for line in written.left_out:
        print(f"{words.prog}: left out: {mask_secrets(line)}", file=sys.stderr)
    if written.left_out:
        sys.exit(EXIT_FAILED)


def sweep_parser(program: str, description: str) -> argparse.ArgumentParser:
    """Make the argument parser of a command that reads a sweep; `parsed_sweep` reads the arguments.

    Args:
        program: name of the command.
        description: description of the command in its help.
    """
    found = OneLineParser(prog=program, description=description)
    add_version(found)
    found.add_argument("directory", type=Path, help="the directory of the sweep, with one folder for each run")
    found.add_argument("--name", help="title of the report (default: the name of the sweep)")
    found.add_argument(
        "--targets",
        default=",".join(USUAL_TARGETS),
        help="targets to judge the runs by: names of files in conf/targets, or paths (default: %(default)s)",
    )
    return found


def parsed_sweep(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line. The process ends with exit code 2 if the directory holds no runs."""
    arguments = parser.parse_args()
    directory = arguments.directory
    try:
        if not directory.is_dir():
            parser.error(f"{directory} is no directory")
        if not run_directories(directory):
            if (directory / RESULT_FILE).is_file():
                parser.error(
                    f"{directory} is a single run, and a report is of a sweep: its numbers are in {RESULT_FILE}"
                )
            below = sorted({path.parent.parent for path in directory.rglob(f"0/{RESULT_FILE}")})
            hint = f"; below it are sweeps: {', '.join(map(str, below[:3]))}" if below else ""
            parser.error(f"{directory} holds no runs of a sweep: there is no 0/{RESULT_FILE}{hint}")
        arguments.name = arguments.name or recorded_sweep_name(directory) or directory.resolve().name
    except (OSError, ValueError) as error:
        parser.error(f"{directory}: {error}")
    return arguments
