"""Import modules once for all the processes that are forked from this one."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_that_stay() -> Iterator[None]:
    """Import in the block without looking for garbage meanwhile, which would take a sixth of the time.

    What exists at its end is kept for good: later collections pass over it, and so leave its memory shared by
    processes that are forked from this one.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
