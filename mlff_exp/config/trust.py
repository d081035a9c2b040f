"""Judge the import paths that a configuration may use; ``trust=[…]`` on the command line allows more.

Importing a module runs its code. An import path is therefore judged as a text, before anything is imported.
"""

from __future__ import annotations

import json
import re
import site
import sys
from collections.abc import Collection, Iterable
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import TypeGuard

from mlff_exp.config.checks import shown
from mlff_exp.config.errors import ConfigError

# Calculators that start no program and load no library whose name they get as an argument.
PLAIN_ASE = ("acn", "eam", "emt", "lj", "morse", "tersoff", "tip3p", "tip4p")
PLAIN = ("mlff_exp", "tblite", *(f"ase.calculators.{module}" for module in PLAIN_ASE))
# Parts of Hydra's configuration that import modules, start programs or write files anywhere, with the reason.
FEATURES = {
    "hydra.callbacks": "callbacks run code of their own",
    "hydra.job.env_set": "an environment variable can make programs load other code",
    "hydra.job.env_copy": "it hands the values of environment variables on",
    "hydra.job_logging": "a logging configuration can import modules, call functions and write any file",
    "hydra.hydra_logging": "a logging configuration can import modules, call functions and write any file",
    "hydra.launcher": "a launcher can run commands and send jobs to other machines",
    "hydra.sweeper": "a sweeper can be made of other objects",
    "hydra.searchpath": "pkg:// imports a module",
    "hydra.run.dir": "it leaves the current directory",
    "hydra.sweep.dir": "it leaves the current directory",
    "hydra.job.name": "it becomes a part of names of files",
}
_LONGEST_PART = 200  # bytes; a name of a file may have 255
_PATH = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*[.:][^\W\d]\w*")


def check_trust(trust: Iterable[str]) -> None:
    """Refuse words that ``trust`` can't hold.

    Args:
        trust: the words.

    Raises:
        ConfigError: a word is neither a package nor a feature of Hydra, or is a module of Python itself.
    """
    for word in trust:
        if word in sys.stdlib_module_names:
            raise ConfigError(f"trust=[{word}]: {word} is a module of Python itself, which holds no force field")
        if word not in FEATURES and not (re.fullmatch(r"[^\W\d]\w*", word) and _is_import_path(f"{word}.x")):
            raise ConfigError(
                f"trust=[{shown(word)}] is neither the top-level name of a package nor one of: {', '.join(FEATURES)}"
            )


def refuse_missing(trust: Iterable[str], directory: Path) -> None:
    """Refuse words of ``trust`` that allow nothing, because there is no such package.

    Args:
        trust: the words, as `check_trust` allows them.
        directory: the directory that is searched besides the places of Python.

    Raises:
        ConfigError: the message names the word.
    """
    for word in trust:
        if word not in FEATURES and _found(word) is None and not _lies_in(directory, word):
            raise ConfigError(
                f"trust=[{shown(word)}]: no package {shown(word)} is installed, and none is in the current directory"
            )


def top_level(path: str) -> str:
    """Return the package of an import path: ``mypkg`` for ``mypkg.module.Class`` and for ``mypkg.module:function``."""
    return re.split("[.:]", path, maxsplit=1)[0]


def _is_import_path(path: object) -> TypeGuard[str]:
    """Whether a value reads as an import path, of names that can be those of files."""
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        return False
    return all(len(part.encode()) <= _LONGEST_PART for part in re.split("[.:]", path))


def judge_import_path(path: object, trust: Collection[str], key: str = "model.calculator._target_") -> None:
    """Refuse an import path that a configuration may not name. Nothing is imported.

    Args:
        path: ``package.module.Class``, or ``package.module:function``.
        trust: top-level packages that the command line allows.
        key: key of the path in the configuration.

    Raises:
        ConfigError: the path is not allowed; the message names it and the word that would allow it.
    """
    if not _is_import_path(path):
        raise ConfigError(f"{key}={shown(repr(path))} is no import path such as package.module.Class")
    top = top_level(path)
    if top in sys.stdlib_module_names:
        raise ConfigError(
            f"{key}={path} is neither an ASE calculator nor a function annotated to return one: "
            f"{top} is a module of Python itself"
        )
    if top in trust or any(path.startswith((f"{plain}.", f"{plain}:")) for plain in PLAIN):
        return
    hint = (
        f"; {top} is in the current directory, which is searched for trusted modules"
        if is_in_current_directory(top)
        else ""
    )
    raise ConfigError(
        f"{key}={path}: importing {top} runs its code. To allow it say trust=[{top}] on the command line{hint}. "
        f"A file may name mlff_exp, tblite and ase.calculators.<one of {', '.join(PLAIN_ASE)}>, the command line any "
        "installed package"
    )


def judge_factory(path: object, trust: Collection[str], key: str = "model.factory") -> None:
    """Refuse a factory of force fields that a configuration may not name. Nothing is imported.

    A factory can be any function, so no package is allowed without trust, not even this one.

    Args:
        path: ``package.module:function``.
        trust: top-level packages that the command line allows or names.
        key: key of the path in the configuration.

    Raises:
        ConfigError: the path is not allowed; the message names it and the word that would allow it.
    """
    if not _is_import_path(path) or ":" not in path:
        raise ConfigError(f"{key}={shown(repr(path))} is no import path such as package.module:function")
    top = top_level(path)
    if top in sys.stdlib_module_names:
        raise ConfigError(f"{key}={path}: {top} is a module of Python itself, which holds no force field")
    if top not in trust:
        raise ConfigError(
            f"{key}={path}: calling it runs the code of {top}. To allow it say trust=[{top}] on the command line; an "
            "installed package needs no trust where the command line itself says model.factory and its arguments"
        )


def is_installed(top: str) -> bool:
    """Whether a package belongs to a distribution in the interpreter's own directories, and is imported from there.

    What only PYTHONPATH reaches does not count. A distribution that was installed to be edited may lie anywhere.
    """
    if top in sys.stdlib_module_names or is_in_current_directory(top):
        return False
    spec = _found(top)
    if spec is None:
        return False
    places = _site_directories()
    from_there = any(Path(found).resolve().is_relative_to(place) for place in places for found in _files(spec))
    holding = [each for each in distributions(path=list(map(str, places))) if top in _packages(each)]
    return any(from_there or _is_editable(each) for each in holding)


def _site_directories() -> list[Path]:
    """The directories in which this interpreter installs packages, and that of the user if it is searched."""
    own = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    return [Path(place).resolve() for place in own]


def _packages(distribution: Distribution) -> set[str]:
    """The top-level names of a distribution, and its own name."""
    declared = (distribution.read_text("top_level.txt") or "").split()
    names = declared or [file.parts[0].partition(".")[0] for file in distribution.files or ()]
    return {*names, re.sub(r"[-.]+", "_", distribution.metadata["Name"] or "").lower()}


def _is_editable(distribution: Distribution) -> bool:
    try:
        return bool(json.loads(distribution.read_text("direct_url.json") or "{}")["dir_info"]["editable"])
    except (ValueError, KeyError, TypeError):
        return False


def is_in_current_directory(top: str) -> bool:
    """Return whether a top-level module is in the current directory and would be imported from there, if at all."""
    here = Path.cwd().resolve()
    spec = _found(top)
    if spec is None:
        return _lies_in(here, top)
    own = (here / f"{top}.py", here / top, here / top / "__init__.py")
    return any(Path(place).resolve() in own for place in _files(spec))


def _files(spec: ModuleSpec) -> list[str]:
    """The file of a module, or the directories of a package without one."""
    return [spec.origin] if spec.origin else list(spec.submodule_search_locations or [])


def make_importable(trust: Iterable[str], directory: Path) -> None:
    """Let Python import trusted modules from a directory if they are nowhere else.

    The directory is searched last, so that it hides no other module.

    Args:
        trust: the words of ``trust``.
        directory: the directory.
    """
    needed = any(_found(word) is None and _lies_in(directory, word) for word in trust if word not in FEATURES)
    if needed and str(directory) not in sys.path:
        sys.path.append(str(directory))


def _lies_in(directory: Path, top: str) -> bool:
    if len(top.encode()) > _LONGEST_PART:
        return False
    return (directory / f"{top}.py").is_file() or (directory / top).is_dir()


def _found(top: str) -> ModuleSpec | None:
    """Return from where Python would import a top-level module, without importing it."""
    try:
        return find_spec(top)
    except (ImportError, ValueError):  # ValueError: a module such as __main__ that has no specification
        return None
