"""Refuse words of the configuration that a task does not use."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mlff_exp.config import NATIVE, Config, ConfigError
from mlff_exp.engines import engine_spec
from mlff_exp.tasks.registry import TASKS


def _unused(config: Config, key: str, override: str) -> str | None:
    """Return why a word changes nothing in a run; None if it changes something."""
    task = config.task
    spec = TASKS[task.name]
    if instead := spec.ignores.get(key):
        return f"task={task.name} takes no {key}; {instead}"
    if key == "gate" and not spec.judged and not config.gate_required:
        judged = " or ".join(f"task={one.name}" for one in TASKS if one.judged)
        return f"task={task.name} is judged by no gate; {judged} is"
    if key == "device" and config.engine.name == NATIVE and not override.endswith(("=cpu", "=auto")):
        return f"model={config.model.name}: the calculator chooses its own device; it gets its batches on the CPU"
    engines = [name for name in (config.engine.name, *getattr(task, "baselines", [])) if name != NATIVE]
    compiles = spec.trains or any(engine_spec(name).compiles for name in engines)
    if key == "cold_compile" and not override.endswith("=false") and not compiles:
        return "nothing is compiled"
    return None


def refuse_unused(jobs: Iterable[tuple[Config, Iterable[str]]]) -> None:
    """Refuse words that would change nothing in any of the jobs.

    A word that one job uses is legal for all: the system of an experiment applies to all of its tasks but ``accuracy``.

    Args:
        jobs: configurations, each with its overrides.

    Raises:
        ConfigError: a word is not used; the message names the word, the task and an alternative.
    """
    unused: dict[str, str] = {}
    used = set()
    for config, overrides in jobs:
        for override in overrides:
            key = re.split(r"[.=@]", override.lstrip("+"), maxsplit=1)[0]
            if reason := _unused(config, key, override):
                unused.setdefault(key, f"{override}: {reason}")
            else:
                used.add(key)
    for key, reason in unused.items():
        if key not in used:
            raise ConfigError(reason)
