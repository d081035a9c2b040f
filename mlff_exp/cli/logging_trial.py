"""Try out the logging of a run before Hydra makes a directory for it."""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mlff_exp.cli.errors import explain_error
from mlff_exp.config import ConfigError

PARTS = ("hydra_logging", "job_logging")


def refuse_logging(composed: DictConfig) -> None:
    """Refuse a logging configuration that Python's logging does not take.

    Args:
        composed: the configuration with Hydra's part.

    Raises:
        ConfigError: the message names the part of Hydra's configuration and the reason.
    """
    tried = composed.copy()
    hydra: Any = HydraConfig.instance()
    before = hydra.cfg
    with TemporaryDirectory() as directory, _logging_kept():
        with read_write(tried), open_dict(tried):
            tried.hydra.runtime.output_dir = directory
        try:
            hydra.cfg = tried  # for the resolver ${hydra:…}
            for part in PARTS:
                _try_out(part, tried.hydra)
        finally:
            hydra.cfg = before


def _try_out(part: str, hydra: DictConfig) -> None:
    try:
        files = [path for path in _files(hydra[part]) if not path.exists()]
        configure_log(hydra[part], hydra.verbose)
    except Exception as error:  # handlers and formatters are any classes
        raise ConfigError(f"hydra.{part} can't be used: {explain_error(error)}") from error
    for path in files:
        with suppress(FileNotFoundError):
            path.unlink()


def _files(part: DictConfig | None) -> list[Path]:
    """Return the files that handlers will write to.

    Raises:
        ConfigError: one is a pipe, which would wait for a reader.
    """
    values: Any = None if part is None else OmegaConf.to_container(part, resolve=True)
    handlers = values.get("handlers") if isinstance(values, Mapping) else None
    found = []
    for handler in handlers.values() if isinstance(handlers, Mapping) else ():
        name = handler.get("filename") if isinstance(handler, Mapping) else None
        if isinstance(name, str):
            found.append(Path(name))
            if found[-1].exists() and stat.S_ISFIFO(found[-1].stat().st_mode):
                raise ConfigError(f"{name} is a pipe")
    return found


@contextmanager
def _logging_kept() -> Iterator[None]:
    """Restore loggers after the block, and close the handlers that were made in it."""
    before = [(one, one.level, list(one.handlers), one.propagate, one.disabled) for one in _loggers()]
    try:
        yield
    finally:
        logging.shutdown()  # it closes handlers that no logger has as well
        for one in _loggers():
            one.handlers.clear()
        for one, level, handlers, propagate, disabled in before:
            one.setLevel(level)
            one.handlers[:], one.propagate, one.disabled = handlers, propagate, disabled


def _loggers() -> list[logging.Logger]:
    root = logging.getLogger()
    return [root, *(one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger))]
