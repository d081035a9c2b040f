"""Names of runs: the words of a label, and the keys of a configuration by which runs differ.

A label is made here, and never parsed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlff_exp.config import NATIVE

SEPARATOR = " · "  # between the words of a label
MAX_VALUE, MAX_LABEL = 60, 240  # characters; MLflow keeps 250 of a run's name
MAX_SYSTEMS = 4  # a label names at most this many systems
NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?\.?(inf|nan)", re.IGNORECASE)
# Groups in which the name of the option determines the other keys.
NAMED = ("gate", "tracking")
# Keys that the label of a single run leaves out: where it is recorded, how long it may take, how long it measures.
NOT_NAMED = re.compile(
    r"(sweep|tracking|gate\.criteria)\..*|trust(\..*)?|timeout_s|gate_required"
    r"|task\.(resume|min_calls|min_time_s|directory|workers|budget_s)"
)
# How the last word of a label gives the size of a run, by the keys that it gives.
SIZES = {
    ("task.n_features", "task.n_interactions"): "{}/{}",
    ("task.replicas",): "×{}",
    ("batch_size",): "B{}",
}
# The keys that a word gives only in part.
ABRIDGED = re.compile(r"model\.(?!name$).*|system\.(path|index|n_molecules)")
USUAL_MODEL = {"name": "student", "checkpoint": "student"}
KNOWN_CALCULATORS = ("ase.calculators.", "mlff_exp.")  # the last part of the path is enough to name the calculator


@dataclass(frozen=True)
class RunKey:
    """The identity of a run; a text is empty where the task has no such field.

    Attributes:
        task: name of the task.
        model: the checkpoint, or the calculator.
        system: name of the system; names separated by commas where several were simulated in one batch.
        engine: name of the engine.
        mode: mode of the compiler.
        precision: name of the precision.
        batch_size: None where the task has none.
        device: name of the device.
    """

    task: str
    model: str
    system: str
    engine: str
    mode: str
    precision: str
    batch_size: int | None
    device: str


def label(config: Mapping[str, Any]) -> str:
    """Return a readable name of a run: ``inference · benzene · compile/reduce-overhead · fp32 · B16 · seed=1``.

    The last words are the keys in ``sweep.varied``, by which the run differs from others.
    """
    text = SEPARATOR.join(label_words(config))
    return text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 11]} …~{_digest(text)}"


def label_words(config: Mapping[str, Any]) -> list[str]:
    """Return the words of a label."""
    return [*(word for word in label_parts(config).values() if word), *varied_words(config)]


def varied_words(config: Mapping[str, Any], groups: Sequence[str] = ()) -> list[str]:
    """Return ``key=value`` for the keys by which this run differs from others.

    Args:
        config: the recorded configuration.
        groups: groups of the configuration to return; all if empty.
    """
    varied = recorded_varied(config)
    names = short_names(varied)
    return [
        f"{names[key]}={value}"
        for key, value in varied.items()
        if value and (not groups or key.partition(".")[0] in groups)
    ]


def recorded_varied(config: Mapping[str, Any]) -> Mapping[str, str]:
    """Return ``sweep.varied``: text by key for the keys by which a run differs; empty text where it has no such key."""
    varied = config.get("sweep", {}).get("varied")
    return varied if isinstance(varied, Mapping) else {}


def label_parts(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the words of a label by group of the configuration; empty for a default value.

    A group that the run does not use is not recorded, and has no word.
    """
    found = {"task": _word(str(config["task"]["name"]))}
    if _has_system(config):
        found["system"] = _system_word(config)
    if "model" in config:
        found |= force_field_words(config)
    if keys := size_keys(config):
        values = _flat(config)
        found["size"] = SIZES[keys].format(*(values[key] for key in keys))
    return found


def size_keys(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys that give the size of a run: of its network, of its ensemble, or of its batch of a system."""
    recorded = {f"task.{key}" for key in config["task"]}
    if _has_system(config) and "batch_size" in config:
        recorded.add("batch_size")
    return next((keys for keys in SIZES if recorded.issuperset(keys)), ())


def _has_system(config: Mapping[str, Any]) -> bool:
    return "system" in config or bool(config["task"].get("systems"))


def force_field_words(config: Mapping[str, Any]) -> dict[str, str]:
    """Return words for model, engine and precision; an ASE calculator has only the first."""
    model, engine = config["model"], config["engine"]
    if engine["name"] == NATIVE:
        return {"model": _word(model_word(model))}
    return {
        "model": "" if model == USUAL_MODEL else _word(model_word(model)),
        "engine": _word(f"{engine['name']}/{engine['mode']}" if "mode" in engine else str(engine["name"])),
        "precision": _word(str(config["precision"]["name"])),
    }


def model_word(model: Mapping[str, Any]) -> str:
    """Return the name of a model: a checkpoint's file, a function's import path, or the name of the option.

    Args:
        model: its part of a configuration, as plain values.
    """
    name, calculator, checkpoint = str(model["name"]), model.get("calculator"), model.get("checkpoint")
    if factory := model.get("factory"):
        return str(factory)
    if isinstance(calculator, Mapping) and "_target_" in calculator:
        return f"{name}/{str(calculator['_target_']).rpartition('.')[2]}"
    if not isinstance(checkpoint, str):
        return name
    file = Path(checkpoint).name
    return file if name == USUAL_MODEL["name"] else f"{name}/{file}"


def system_name(config: Mapping[str, Any]) -> str:
    """Return the name of the system; a file is named by its own name."""
    system = config["system"]
    return Path(system["path"]).stem if system["name"] == "file" else str(system["name"])


def find_varied_keys(
    configs: Sequence[Mapping[str, Any]], used: Sequence[Mapping[str, Any]] | None = None
) -> list[list[str]]:
    """Return for each job of a sweep the keys by which the jobs of its task differ and that their labels do not show.

    With these keys recorded as ``sweep.varied``, two different jobs never have the same label.

    Args:
        configs: plain values, one mapping for each job.
        used: the same without the keys that the jobs do not use; ``configs`` if None.
    """
    by_task = {}
    pairs = list(zip(configs, configs if used is None else used, strict=True))
    for task in dict.fromkeys(config["task"]["name"] for config in configs):
        by_task[task] = _varied([pair for pair in pairs if pair[0]["task"]["name"] == task])
    return [by_task[config["task"]["name"]] for config in configs]


def _varied(jobs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[str]:
    flat, told = [_flat(job) for job, _ in jobs], [_Told.by(used) for _, used in jobs]
    keys = list(dict.fromkeys(key for values in flat for key in values if not key.startswith("sweep.")))
    chosen: list[str] = []
    # The name of a gate comes before its limits, because the name may determine them.
    for key in sorted(keys, key=lambda key: key not in [f"{group}.name" for group in NAMED]):
        group = key.partition(".")[0]
        leaders = [other for other in chosen if group in NAMED and other.startswith(f"{group}.")]
        known = [
            (one.word(key), *(values.get(other, "") for other in leaders))
            for one, values in zip(told, flat, strict=True)
        ]
        if not _determined(known, [values.get(key, "") for values in flat]):
            chosen.append(key)
    return sorted(chosen, key=keys.index)


def add_varied_keys(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the same configurations, with ``sweep.varied`` added where an earlier version recorded none."""
    found = []
    for config, keys in zip(configs, find_varied_keys(configs), strict=True):
        sweep = config.get("sweep", {})
        known = isinstance(sweep.get("varied"), Mapping)
        found.append({**config} if known else {**config, "sweep": {**sweep, "varied": values_of(config, keys)}})
    return found


def make_run_key(config: Mapping[str, Any]) -> RunKey:
    """Make the key of a run from its configuration."""
    task, known = str(config["task"]["name"]), label_parts(config)
    model = config.get("model")
    return RunKey(
        task=task,
        model=known.get("model") or ("" if model is None else model_word(model)),
        system=known.get("system", ""),
        engine=str(config.get("engine", {}).get("name", "")),
        mode=str(config.get("engine", {}).get("mode", "")),
        precision=str(config.get("precision", {}).get("name", "")),
        batch_size=config["batch_size"] if "batch_size" in size_keys(config) else None,
        device=str(config.get("device", "")),
    )


def find_unusual_keys(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Return the keys of a single run that differ from the defaults and that its label does not show.

    Args:
        config: plain values of the keys that the run uses.
        defaults: defaults in the same form; a key that is absent has no default.
    """
    told, usual = _Told.by(config), _flat(defaults)
    found = []
    for key, value in _flat(config).items():
        if NOT_NAMED.fullmatch(key) or value in (usual.get(key, "null"), ""):
            continue
        if key == "model.calculator._target_" and value.startswith(KNOWN_CALCULATORS):
            continue
        word = None if ABRIDGED.match(key) else told.word(key)
        group = told.parts.get(_group(key), "")
        if word is None and not key.startswith(("engine.", "precision.")) and value not in group:
            found.append(key)
    return found


def values_of(config: Mapping[str, Any], keys: Iterable[str]) -> dict[str, str]:
    """Return the values of a configuration under these keys as text; empty where there is none."""
    flat = _flat(config)
    return {key: flat.get(key, "") for key in keys}


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return the last part of each key, or the complete key where the last part is ambiguous."""
    keys = list(keys)
    short = {key: _last(key) for key in keys}
    last = list(short.values())
    return {key: format_value(name if last.count(name) == 1 else key) for key, name in short.items()}


def format_value(value: Any) -> str:
    """Format a value in one line of text; different values give different texts, and a long text ends with a hash."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        text = f"[{','.join(format_value(item) for item in value)}]"
    elif isinstance(value, str):
        # Quotes around a text that looks like another type.
        other = not value or value.lower() in ("true", "false", "null") or NUMBER.fullmatch(value)
        text = json.dumps(value, ensure_ascii=not value.isprintable()) if other else _word(value)
    else:
        text = str(value)
    return _abridged(text)


def _word(text: str) -> str:
    """Format a string in one line of text, in quotes where its end would be unclear."""
    if not text.isprintable() or re.search(r'["\\·]|^\s|\s$|^…', text):
        text = json.dumps(text, ensure_ascii=not text.isprintable())
    return _abridged(text)


def _abridged(text: str) -> str:
    return text if len(text) <= MAX_VALUE else f"…{text[-(MAX_VALUE - 10) :]}~{_digest(text)}"


def _system_word(config: Mapping[str, Any]) -> str:
    systems = config["task"].get("systems") or [system_name(config)]
    names = [_word(str(name)) for name in systems]
    if len(names) <= MAX_SYSTEMS:
        return ", ".join(names)
    return f"{', '.join(names[: MAX_SYSTEMS - 1])}, … ({len(names)} systems)~{_digest(', '.join(names))}"


@dataclass(frozen=True)
class _Told:
    """The words of a label, and the keys that its last word gives."""

    parts: Mapping[str, str]
    sizes: tuple[str, ...]

    @staticmethod
    def by(config: Mapping[str, Any]) -> _Told:
        return _Told(label_parts(config), size_keys(config))

    def word(self, key: str) -> str | None:
        """Return the word that depends on a key, or None if none does."""
        if key in self.sizes:
            return self.parts["size"]
        return None if _group(key) == "task" and key != "task.name" else self.parts.get(_group(key))


def _group(key: str) -> str:
    return "system" if key == "task.systems" else key.partition(".")[0]


def _determined(known: Sequence[Hashable], values: Sequence[str]) -> bool:
    """Return whether equal knowledge always means equal values."""
    return len(set(zip(known, values, strict=True))) == len(set(known))


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = format_value(value)
    return flat


def _last(key: str) -> str:
    parts = key.split(".")
    while len(parts) > 1 and parts[-1] in ("name", "_target_"):
        parts.pop()
    return parts[-1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
