"""Replace an attribute of a foreign object temporarily."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replace_attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an attribute of a module, a class or an object another value for the duration of the block.

    Args:
        owner: has the attribute, or inherits it.
        name: name of the attribute.
        value: value inside the block.

    Raises:
        AttributeError: the owner has no such attribute.
    """
    own = name in vars(owner)
    before = vars(owner)[name] if own else getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)
