"""A memory limit for foreign code that may allocate as much as a file asks for."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STATM = Path("/proc/self/statm")


@contextmanager
def limit_memory(n_bytes: int) -> Iterator[None]:
    """Limit the additional address space of the block; no limit where the system has no /proc/self/statm.

    Args:
        n_bytes: how much the block may allocate.

    Raises:
        MemoryError: the block asked for more.
    """
    if not STATM.is_file():
        yield
        return
    now = int(STATM.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [limit for limit in (now + n_bytes, before, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
