"""What a file may say of Hydra's own configuration: by key, the feature that ``trust`` names, and what is plain."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

Parts = tuple[str, ...]
_WORD = re.compile(r"[\w.:,=@+%/ -]*")
_NUMBER = (int, float, bool, type(None))
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_HANDLERS = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler")
_LOG_FILES = (
    "${hydra.runtime.output_dir}/run.log",
    "${hydra.runtime.output_dir}/${hydra.job.name}.log",
)
_LOG_WORDS = ("level", "format", "datefmt", "formatter", "mode", "encoding", "version", "propagate", "delay")
_LAUNCHERS = (
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
)
_RESOURCES = (
    "account", "comment", "constraint", "exclude", "gres", "mem_per_cpu", "mem_per_gpu", "name", "partition", "qos",
)  # fmt: skip
_LAUNCHER_OWN = {"submitit_folder": "${hydra.sweep.dir}/.submitit/%j", "name": "${hydra.job.name}"}
_SWEEPERS = (
    "hydra_plugins.mlff_exp_sweeper.staged.StagedSweeper",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
)
_IN_DIRECTORIES = re.compile(r"\$\{(?:sweep\.name|hydra\.job\.(?:num|id|name))\}")
# Plain text of a format stands in the path as it is; each of these codes gives digits and dashes or colons.
_NOW = re.compile(r"\$\{now:((?:%[YymdHMSjfFT]|[\w.-])*)\}")


def _is_plain_log(parts: Parts, value: Any) -> bool:
    last = parts[-1] if parts else ""
    if not all(re.fullmatch(r"[\w.]+", part) for part in parts):
        return False
    match last:
        case "class":
            return value in _HANDLERS
        case "stream":
            return value in _STREAMS
        case "filename":
            return value in _LOG_FILES
    if isinstance(value, _NUMBER):
        return True
    in_list = len(parts) > 1 and parts[-2] in ("handlers", "loggers") and last.isdecimal()
    return (last in _LOG_WORDS or in_list) and "${" not in value and "://" not in value


def _is_plain_launcher(parts: Parts, value: Any) -> bool:
    if parts == ("_target_",):
        return value in _LAUNCHERS
    if not parts or not all(re.fullmatch(r"[A-Za-z]\w*", part) for part in parts):
        return False
    if isinstance(value, _NUMBER) or value == _LAUNCHER_OWN.get(".".join(parts)):
        return True
    return len(parts) == 1 and parts[0] in _RESOURCES and _WORD.fullmatch(value) is not None


def _is_plain_sweeper(parts: Parts, value: Any) -> bool:
    if parts == ("_target_",):
        return value in _SWEEPERS
    if not parts or any(part.startswith("_") for part in parts):
        return False
    # Each parameter is an override, and judged where its job is composed.
    return isinstance(value, _NUMBER) or (len(parts) == 2 and parts[0] == "params")


def _is_plain_directory(_: Parts, value: Any) -> bool:
    if not isinstance(value, str):
        return isinstance(value, _NUMBER)
    path = _IN_DIRECTORIES.sub("x", _NOW.sub(r"\1", value))
    outside = path.startswith("~") or Path(path).is_absolute() or ".." in Path(path).parts
    return "$" not in path and not outside


def _is_plain_name(_: Parts, value: Any) -> bool:
    return value == "???" or re.fullmatch(r"[\w-][\w.-]*", str(value)) is not None


def _is_unset(_: Parts, value: Any) -> bool:
    return value in (None, "???")


def _is_nothing(_: Parts, value: Any) -> bool:
    return value is None


# By the key of Hydra's configuration: the feature that trust names, and what is plain below the key.
RULES = {
    "hydra.callbacks": ("hydra.callbacks", _is_nothing),
    "hydra.job.env_copy": ("hydra.job.env_copy", _is_nothing),
    "hydra.job.env_set": ("hydra.job.env_set", _is_nothing),
    "hydra.job.name": ("hydra.job.name", _is_plain_name),
    "hydra.job_logging": ("hydra.job_logging", _is_plain_log),
    "hydra.hydra_logging": ("hydra.hydra_logging", _is_plain_log),
    "hydra.launcher": ("hydra.launcher", _is_plain_launcher),
    "hydra.sweeper": ("hydra.sweeper", _is_plain_sweeper),
    "hydra.runtime.output_dir": ("hydra.run.dir", _is_unset),
    "hydra.job.id": ("hydra.job.name", _is_unset),
    "hydra.job.num": ("hydra.job.name", _is_unset),
    "hydra.run.dir": ("hydra.run.dir", _is_plain_directory),
    "hydra.sweep.dir": ("hydra.sweep.dir", _is_plain_directory),
    "hydra.sweep.subdir": ("hydra.sweep.dir", _is_plain_directory),
}

# What Hydra writes itself, so that a value of a file would have no effect.
RECORDS = ("hydra.runtime", "hydra.job.config_name", "hydra.job.override_dirname")
