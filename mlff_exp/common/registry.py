"""Registries of named specs, to which installed packages add their own by entry points."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, Protocol, TypeVar


class Named(Protocol):
    """An object with a name."""

    @property
    def name(self) -> str:
        """The name in a configuration."""


Spec = TypeVar("Spec", bound=Named)


class UnknownNameError(LookupError):
    """A name that a registry does not have; the message gives the legal names."""


class Registry(Generic[Spec]):
    """Specs of one kind by name, in the order of registration.

    A registry imports no heavy packages: a spec gives the path of an object, and `load_object` imports that when it is
    needed.

    Args:
        kind: the word for a spec in messages, such as "engine".
        group: group of entry points. Each points at a spec, which is loaded when the registry is first read.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
        self._specs: dict[str, Spec] = {}
        self._broken: dict[str, str] = {}
        self._looked_outside = False

    def register(self, spec: Spec) -> Spec:
        """Add a spec.

        Raises:
            ValueError: the name is taken.
        """
        if spec.name in self._specs:
            raise ValueError(f"{self.kind} {spec.name!r} is registered twice")
        self._specs[spec.name] = spec
        return spec

    def names(self) -> tuple[str, ...]:
        """Return all names."""
        return tuple(self._all())

    def __iter__(self) -> Iterator[Spec]:
        """All specs."""
        return iter(self._all().values())

    def __contains__(self, name: object) -> bool:
        """Whether there is a spec of this name."""
        return name in self._all()

    def is_broken(self, name: str) -> bool:
        """Return whether an entry point has this name and can't be loaded."""
        self._all()
        return name in self._broken

    def __getitem__(self, name: str) -> Spec:
        """Return the spec of a name.

        Raises:
            UnknownNameError: there is none. The message lists the names and the nearest of them, or says why the entry
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
    """Import the object that ``package.module:name`` names.

    Raises:
        ValueError: the path has another form.
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
