"""Named things of one kind, to which installed packages add their own by entry points."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, Protocol, TypeVar


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """The word for it in a configuration."""


Spec = TypeVar("Spec", bound=Named)


class UnknownNameError(LookupError):
    """A name that a registry does not hold; the message says which it holds."""


class Registry(Generic[Spec]):
    """Specs of one kind by name, in the order in which they were registered.

    A registry imports nothing heavy: a spec names what makes the thing, and `load_object` imports that when it is made.

    Args:
        kind: the word for one of them in messages, such as "engine".
        group: of entry points. Each points at a spec; it is loaded when the registry is first looked at.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
        self._specs: dict[str, Spec] = {}
        self._broken: dict[str, str] = {}
        self._looked_outside = False

    def register(self, spec: Spec) -> Spec:
        """Add a spec.

        Raises:
            ValueError: its name is taken.
        """
        if spec.name in self._specs:
            raise ValueError(f"{self.kind} {spec.name!r} is registered twice")
        self._specs[spec.name] = spec
        return spec

    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(self._all())

    def __iter__(self) -> Iterator[Spec]:
        """All specs."""
        return iter(self._all().values())

    def __contains__(self, name: object) -> bool:
        """Whether there is a spec of this name."""
        return name in self._all()

    def is_broken(self, name: str) -> bool:
        """Whether an entry point has this name and can't be loaded."""
        self._all()
        return name in self._broken

    def __getitem__(self, name: str) -> Spec:
        """The spec of a name.

        Raises:
            UnknownNameError: there is none; the message lists the names and the nearest of them, or says why the entry
                point of this name can't be loaded.
        """
        specs = self._all()
        if name in specs:
            return specs[name]
        if name in self._broken:
            raise UnknownNameError(f"{self.kind} {name!r} can't be loaded: {self._broken[name]}")
        near = get_close_matches(name, specs, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UnknownNameError(f"{self.kind} {name!r} is not one of: {', '.join(specs)}{hint}")

    def _all(self) -> dict[str, Spec]:
        if not self._looked_outside:
            self._looked_outside = True
            for point in entry_points(group=self.group):
                try:
                    self.register(point.load())
                except (ImportError, AttributeError, ValueError) as error:
                    self._broken[point.name] = f"{point.value}: {error}"
                    warnings.warn(
                        f"entry point {point.name!r} of group {self.group!r}: {point.value}: {error}", stacklevel=2
                    )
        return self._specs


def load_object(path: str) -> Any:
    """What ``package.module:name`` names.

    Raises:
        ValueError: the path has no such form.
        ImportError: there is no such module, or it has no such name.
    """
    module_name, separator, name = path.partition(":")
    if not (module_name and separator and name):
        raise ValueError(f"{path!r} is not of the form package.module:name")
    module = import_module(module_name)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise ImportError(f"module {module_name!r} has no {name!r}")
        found = getattr(found, part)
    return found
