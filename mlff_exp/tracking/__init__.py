"""What MLflow is told: runs while they go on, finished run directories, the parents of sweeps, and verdicts."""

from __future__ import annotations

from mlff_exp.tracking.live import Live
from mlff_exp.tracking.lookup import directory_of, found_go
from mlff_exp.tracking.recovery import connect
from mlff_exp.tracking.store import Store, make_database
from mlff_exp.tracking.sweeps import SWEEP_FILE, sweep
from mlff_exp.tracking.upload import CONFIG_FILE, OPENED_FILE, UPLOADED_FILE, log_run, record, set_tag

__all__ = [
    "CONFIG_FILE",
    "OPENED_FILE",
    "SWEEP_FILE",
    "UPLOADED_FILE",
    "Live",
    "Store",
    "connect",
    "directory_of",
    "found_go",
    "log_run",
    "make_database",
    "record",
    "set_tag",
    "sweep",
]
