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
from mlff_exp.runs import EXIT_FAILED, number_of_jobs, recorded_sweep_name


@command_boundary("mlff-exp-report")
def report_main() -> None:
    """Command line of ``mlff-exp-report``. It ends with exit code 1 if a result is missing or can't be read."""
    description = "Write the report of a sweep again: report.html and report.md in the sweep's directory."
    words = sweep_parser("mlff-exp-report", description)
    arguments = parsed_sweep(words)
    try:
        targets = load_targets(arguments.targets.split(","))
        n_jobs = number_of_jobs(arguments.directory)
        numbers = None if n_jobs is None else range(n_jobs)
        written = write_report(arguments.directory, arguments.name, numbers, targets)
    except (ConfigError, ResultError) as error:
        words.error(str(error))
    print(f"report: {written.page}")
    left_out = [*written.left_out, *_other_numbers(arguments.directory, numbers)]
    for line in left_out:
        print(f"{words.prog}: left out: {mask_secrets(line)}", file=sys.stderr)
    if left_out:
        sys.exit(EXIT_FAILED)


def _other_numbers(directory: Path, numbers: range | None) -> list[str]:
    """Return a line for each run that left no result, and for each directory that is of no run of the sweep."""
    if numbers is None:
        return []
    found = run_directories(directory)
    missing = [f"{directory / str(number)} has no {RESULT_FILE}" for number in numbers if number not in found]
    beyond = [
        f"{path} is none of the {len(numbers)} runs of this sweep" for n, path in found.items() if n not in numbers
    ]
    return [*missing, *beyond]


def named_path(text: str) -> Path:
    """Read a path from the command line; an empty one would stand for the current directory.

    Raises:
        argparse.ArgumentTypeError: it is empty.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} must name a directory")
    return Path(text)


def sweep_parser(program: str, description: str) -> argparse.ArgumentParser:
    """Make the argument parser of a command that reads a sweep; `parsed_sweep` reads the arguments.

    Args:
        program: name of the command.
        description: description of the command in its help.
    """
    found = OneLineParser(prog=program, description=description)
    add_version(found)
    found.add_argument("directory", type=named_path, help="the directory of the sweep, with one folder for each run")
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
