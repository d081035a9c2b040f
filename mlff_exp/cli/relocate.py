"""The command ``mlff-exp-relocate``."""

from __future__ import annotations

import sys
from pathlib import Path

from mlff_exp.cli.boundary import OneLineParser, command_boundary
from mlff_exp.common import add_version
from mlff_exp.config import ConfigError
from mlff_exp.runs import EXIT_REFUSED
from mlff_exp.tracking import relocate


@command_boundary("mlff-exp-relocate")
def relocate_main() -> None:
    """Command line of ``mlff-exp-relocate``."""
    parser = OneLineParser(
        prog="mlff-exp-relocate",
        description="Correct the addresses of artifacts in a store that was moved, also to another machine.",
    )
    add_version(parser)
    parser.add_argument(
        "mlruns", type=Path, nargs="?", default=Path("mlruns"), help="where the store is now (default: mlruns)"
    )
    try:
        print(f"{relocate(parser.parse_args().mlruns)} addresses changed")
    except ConfigError as error:
        print(f"mlff-exp-relocate: {error}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)
