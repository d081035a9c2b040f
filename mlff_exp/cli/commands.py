"""Choose between a run and the other commands of ``mlff-exp``: ``mlff-exp report …`` is ``mlff-exp-report …``."""

from __future__ import annotations

import gc
import sys

from mlff_exp.common import load_object

COMMANDS = {
    "check": "mlff_exp.cli.check:check_main",
    "judge": "mlff_exp.cli.judge:judge_main",
    "publish": "mlff_exp.cli.publish:publish_main",
    "relocate": "mlff_exp.cli.relocate:relocate_main",
    "report": "mlff_exp.cli.report:report_main",
    "sync": "mlff_exp.cli.sync:sync_main",
}


def main() -> None:
    """Run the command that the first word names, or else a run or a sweep. This is the entry point of ``mlff-exp``."""
    # Half a million objects are imported that stay; looking for garbage among them would take a sixth of that time.
    gc.set_threshold(50_000, 20, 100)
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        command = load_object(COMMANDS[sys.argv.pop(1)])
    else:
        command = load_object("mlff_exp.cli.app:main")
    command()
