"""What processes of tests do; by itself, so that they import nothing that is slow."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection

from mlff_exp import worker
from mlff_exp.config import Config


def fail_by_seed(config: Config, share: int, reason: Connection) -> None:
    """Succeed, say why not, end with a code, and be killed."""
    worker.begin_session()
    if config.seed == 2:
        os._exit(3)
    if config.seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    reason.send("out_of_memory: 80 GB" if config.seed == 1 else "")


def sleep(config: Config, share: int, reason: Connection) -> None:
    """For longer than any test."""
    worker.begin_session()
    time.sleep(600)
