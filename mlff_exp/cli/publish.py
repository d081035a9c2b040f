"""The command ``mlff-exp-publish``."""

from __future__ import annotations

from mlff_exp.cli.boundary import command_boundary
from mlff_exp.cli.report import named_path, parsed_sweep, sweep_parser
from mlff_exp.config import ConfigError
from mlff_exp.report import load_targets, publish, read_sweep
from mlff_exp.results import ResultError


@command_boundary("mlff-exp-publish")
def publish_main() -> None:
    """Command line of ``mlff-exp-publish``."""
    program = sweep_parser(
        "mlff-exp-publish",
        "Write a sweep's report to keep in a repository: README.md with its figures, runs.csv and environment.json. "
        "A sweep of timings also gets headline.md (a line for each engine and precision) and kernels.csv.",
    )
    program.add_argument("target", type=named_path, help="the directory to write into; it is made if it does not exist")
    program.add_argument(
        "--allow-dirty", action="store_true", help="publish runs that were made with uncommitted changes"
    )
    arguments = parsed_sweep(program)
    try:
        targets = load_targets(arguments.targets.split(","))
        found = read_sweep(arguments.directory)
    except (ConfigError, ResultError) as error:
        program.error(str(error))
    dirty = [number for number, result in found.items() if result.environment.get("git_diff")]
    if dirty and not arguments.allow_dirty:
        program.error(
            f"{arguments.directory}: {len(dirty)} of {len(found)} runs were made from a tree with uncommitted changes, "
            f"the first of them {dirty[0]}, and nobody can repeat them: run it again from a commit, or --allow-dirty"
        )
    try:
        page = publish(arguments.directory, found, arguments.name, arguments.target, targets)
    except ResultError as error:
        program.error(str(error))
    except FileNotFoundError as error:
        program.error(f"{arguments.target}: no such directory can be made: {error.strerror}")
    print(f"published: {page}")
