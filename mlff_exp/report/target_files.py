"""Read lists of targets from files: those in conf/targets by name, and files of the user by path."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mlff_exp.common import expand_home, typed_value
from mlff_exp.config import ConfigError, refuse_yaml
from mlff_exp.report.targets import TargetList

PACKAGE = Path(__file__).resolve().parent.parent
FOLDERS = (PACKAGE / "conf" / "targets", PACKAGE.parent / "conf" / "targets")  # of a wheel and of a checkout
USUAL_TARGETS = ("plan", "ours")
SELECTORS = ("about", "where")
LISTS = ("task", "model", "system", "engine", "mode", "precision", "batch_size")  # selectors that take several


@dataclass(frozen=True)
class TargetFile:
    """The content of a file of targets."""

    lists: tuple[TargetList, ...]


def load_targets(names: Iterable[str] = USUAL_TARGETS) -> list[TargetList]:
    """Read the lists of targets of these files.

    Args:
        names: of shipped files, such as ``plan``, or paths.

    Raises:
        ConfigError: there is no such file, or it holds something else. The message names it.
    """
    found: list[TargetList] = []
    for name in names:
        path = _path(name)
        try:
            refuse_yaml(path)
            held = yaml.safe_load(path.read_text(encoding="utf-8"))
            if not isinstance(held, dict):
                raise TypeError("it holds no mapping with the key lists")
            content = OmegaConf.to_container(OmegaConf.create(held), resolve=False)
            found += typed_value(TargetFile, _normal(content)).lists
        except ConfigError as error:
            raise ConfigError(f"targets: {error}") from error
        except OSError as error:
            raise ConfigError(f"targets: {name} can't be read: {error.strerror}") from error
        except (ValueError, TypeError, YAMLError, OmegaConfBaseException) as error:
            reason = " ".join(str(error).split())
            reason = reason if len(reason) < 200 else f"{reason[:200]} …"
            raise ConfigError(f"targets: {name} is no file of targets: {reason}") from error
    return found


def _path(name: str) -> Path:
    shipped = {path.stem: path for folder in FOLDERS if folder.is_dir() for path in folder.glob("*.yaml")}
    if name in shipped:
        return shipped[name]
    path = expand_home(name)
    if not path.is_file():
        raise ConfigError(f"targets: {name!r} is neither one of {', '.join(sorted(shipped))} nor a file")
    return path


def _normal(value: Any, key: str = "") -> Any:
    """Turn a single value of a selector that takes several into a list."""
    if isinstance(value, dict):
        normal = {name: _normal(below, str(name)) for name, below in value.items()}
        if key in SELECTORS:
            normal |= {name: [below] for name, below in normal.items() if name in LISTS and not isinstance(below, list)}
        return normal
    return [_normal(item) for item in value] if isinstance(value, list) else value
