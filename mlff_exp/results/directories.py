"""Which directories of a sweep's directory are its runs."""

from __future__ import annotations

import re
from pathlib import Path

from mlff_exp.results.result import RESULT_FILE

NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")  # the name of a run's directory in that of its sweep


def run_directories(directory: Path) -> dict[int, Path]:
    """Directories of the runs of a sweep that left a result, by their number, in order.

    Attempts that were put aside, and what is not named by a number, do not count.
    """
    found = {int(path.parent.name): path.parent for path in directory.glob(f"*/{RESULT_FILE}")
             if NUMBER.fullmatch(path.parent.name)}  # fmt: skip
    return dict(sorted(found.items()))
