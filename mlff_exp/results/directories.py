"""Find the directories of runs in the directory of a sweep."""

from __future__ import annotations

import re
from pathlib import Path

from mlff_exp.results.result import RESULT_FILE

NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")  # the name of a run's directory in the directory of its sweep


def run_directories(directory: Path) -> dict[int, Path]:
    """Return the directories of a sweep's runs that have a result, by their number, in order.

    Directories of earlier attempts, and those not named by a number, are ignored.
    """
    found = {int(path.parent.name): path.parent for path in directory.glob(f"*/{RESULT_FILE}")
             if NUMBER.fullmatch(path.parent.name)}  # fmt: skip
    return dict(sorted(found.items()))
