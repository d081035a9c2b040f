"""What MLflow is told: runs while they go on, finished run directories, the parents of sweeps, and verdicts."""

from __future__ import annotations

from mlff_exp.tracking.faults import first_line, say
from mlff_exp.tracking.live import Live
from mlff_exp.tracking.local import make_database
from mlff_exp.tracking.lookup import directory_of, found_go
from mlff_exp.tracking.markers import OPENED_FILE, UPLOADED_FILE, is_uploaded, uploaded_ids
from mlff_exp.tracking.recovery import connect
from mlff_exp.tracking.store import Store, answers
from mlff_exp.tracking.sweeps import SWEEP_FILE, end_late, for_upload, sweep
from mlff_exp.tracking.upload import CONFIG_FILE, log_run, record, set_tag

__all__ = [
    "CONFIG_FILE",
    "OPENED_FILE",
    "SWEEP_FILE",
    "UPLOADED_FILE",
    "Live",
    "Store",
    "answers",
    "connect",
    "directory_of",
    "end_late",
    "first_line",
    "for_upload",
    "found_go",
    "is_uploaded",
    "log_run",
    "make_database",
    "record",
    "say",
    "set_tag",
    "sweep",
    "uploaded_ids",
]
