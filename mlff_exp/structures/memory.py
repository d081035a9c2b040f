"""A limit of memory for code of others that takes what a file promises."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STATM = Path("/proc/self/statm")


@contextmanager
def limit_memory(n_bytes: int) -> Iterator[None]:
    """Let the block take so many bytes more of address space; without effect where the system does not tell its use.

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
