"""The command ``mlff-exp judge``: the verdict of a gate on recorded energies, without integrating again."""

from __future__ import annotations

import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mlff_exp.cli.app import CONF, CONFIG_NAME
from mlff_exp.cli.boundary import OneLineParser, command_boundary, end_command
from mlff_exp.cli.errors import explain_error
from mlff_exp.common import add_version
from mlff_exp.config import ConfigError, Gate, parse_config, rename_word
from mlff_exp.results import ResultError
from mlff_exp.runs import EXIT_NO_GO, EXIT_REFUSED
from mlff_exp.tasks import judge_recorded, verdict_lines

PROGRAM = "mlff-exp judge"


@command_boundary(PROGRAM)
def judge_main() -> None:
    """Command line of ``mlff-exp judge``."""
    parser = OneLineParser(
        prog=PROGRAM,
        description="Judge the recorded trajectories of a run of task=nve again, by its own gate or by another one.",
        epilog="Ends with 0 for GO, 3 for NO-GO and UNDECIDED, 2 if there is nothing to judge.",
    )
    add_version(parser)
    parser.add_argument("directory", type=Path, help="the directory of the run")
    parser.add_argument("gate", nargs="*", help="gate=… and gate.criteria.… (default: the gate of the run)")
    parser.add_argument("--starts", type=int, help="judge only this many starts, from the first on (default: all)")
    arguments = parser.parse_args()
    try:
        gate = _gate(arguments.gate) if arguments.gate else None
        verdicts = judge_recorded(arguments.directory, gate, arguments.starts)
    except ResultError as error:
        parser.error(str(error))
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        end_command(PROGRAM, explain_error(error), EXIT_REFUSED)
    for name, verdict in verdicts.items():
        print("\n".join([name, *verdict_lines(verdict)]))
    if any(verdict.decision != "GO" for verdict in verdicts.values()):
        sys.exit(EXIT_NO_GO)


def _gate(words: list[str]) -> Gate:
    """Make a gate from words of the command line.

    Raises:
        ConfigError: a word is wrong, or is not one of a gate.
    """
    for word in words:
        if not word.startswith(("gate=", "gate.", "~gate.", "+gate.")):
            raise ConfigError(f"{word!r} is not a word of the gate: give gate=… or gate.criteria.…")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return parse_config(compose(CONFIG_NAME, overrides=["task=nve", *map(rename_word, words)])).gate
