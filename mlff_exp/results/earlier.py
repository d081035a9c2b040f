"""Bring results of earlier versions into the form of this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlff_exp.config import NATIVE, new_option, rename_recorded
from mlff_exp.results.verdict import FaultKind

SCHEMA = 2  # of result.json; 1 had neither number nor key, and one verdict on all systems

# The keys that the first schema recorded although the task did not use them.
UNUSED: dict[str, tuple[str, ...]] = {
    "accuracy": ("system",),
    "nve": ("batch_size",),
    "distill": ("model", "system", "engine", "precision", "batch_size"),
}
# The keys that a run of the first schema must have recorded, by its task and by its model.
FORCE_FIELD = ("model.name", "engine.name", "precision.name")
NEEDED: dict[str, tuple[str, ...]] = {
    "inference": (*FORCE_FIELD, "system.name", "batch_size"),
    "accuracy": FORCE_FIELD,
    "nve": (*FORCE_FIELD, "task.replicas"),
    "distill": ("task.n_features", "task.n_interactions"),
}
OF_MODELS = {"student": "model.checkpoint", "ase": "model.calculator._target_", "torch": "model.factory"}
# The tasks whose runs recorded ``sweep.gate_decision`` although it says nothing of them.
OWN_VERDICT = ("nve", "distill")


def upgrade(values: Any) -> Any:
    """Return the plain values of a result in the form of this version.

    Args:
        values: as read from a file; other values than a mapping are returned unchanged.

    Raises:
        ValueError: the result is of a later version.
    """
    if not isinstance(values, dict):
        return values
    schema = values.get("schema", 1)
    if isinstance(schema, bool) or not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
        raise ValueError(f"schema={schema!r:.40} is none of 1 … {SCHEMA}: a later version may have written it")
    values = _without_gate_decision(_renamed(values))
    return _with_systems(_as_it_ran(_without_unused(values))) | {"schema": SCHEMA} if schema == 1 else values


def needed_keys(config: Mapping[str, Any]) -> list[str]:
    """Return the keys that a run of the first schema, which had no key, must have recorded.

    Args:
        config: its configuration in the form of this version, with values of the right types.
    """
    task, model = config["task"], config.get("model", {})
    needed = list(NEEDED.get(str(task.get("name")), ()))
    if needed[:3] == list(FORCE_FIELD) and (own := OF_MODELS.get(str(model.get("name")))):
        needed.append(own)
    if task.get("name") == "nve" and not task.get("systems"):
        needed.append("system.name")
    return needed


def _without_gate_decision(values: Mapping[str, Any]) -> dict[str, Any]:
    """Remove what was recorded of the gate of the sweep from runs that have a verdict of their own, or none."""
    config = values.get("config")
    task, sweep = (config.get("task"), config.get("sweep")) if isinstance(config, dict) else (None, None)
    if not isinstance(config, dict) or not isinstance(task, dict) or not isinstance(sweep, dict):
        return dict(values)
    if task.get("name") not in OWN_VERDICT:
        return dict(values)
    kept = {key: value for key, value in sweep.items() if key != "gate_decision"}
    return {**values, "config": {**config, "sweep": kept}}


def _without_unused(values: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the keys of the configuration that the task did not use."""
    config = values.get("config")
    task = config.get("task") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(task, dict):
        return dict(values)
    unused = {*UNUSED.get(str(task.get("name")), ()), *(("system",) if task.get("systems") else ())}
    return {**values, "config": {key: value for key, value in config.items() if key not in unused}}


def _as_it_ran(values: Mapping[str, Any]) -> dict[str, Any]:
    """With engine and precision ``native`` for an ASE calculator, which had those that the configuration named."""
    config = values.get("config")
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(model, dict) or model.get("name") != "ase":
        return dict(values)
    return {**values, "config": {**config, "engine": {"name": NATIVE}, "precision": {"name": NATIVE}}}


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace old names of words of the configuration."""
    found = dict(values)
    if isinstance(config := found.get("config"), Mapping):
        found["config"] = rename_recorded(config)
    if isinstance(found.get("verdict"), Mapping):
        found["verdict"] = _verdict_renamed(found["verdict"])
    return found


def _verdict_renamed(verdict: Mapping[str, Any]) -> dict[str, Any]:
    found = _with_kinds(verdict)
    if isinstance(systems := found.get("systems"), Mapping):
        found["systems"] = {
            name: _with_kinds(one) if isinstance(one, Mapping) else one for name, one in systems.items()
        }
    return found


def _with_kinds(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """With the new name of the gate, and with faults that have a kind: they were plain sentences."""
    found = dict(verdict)
    if isinstance(found.get("gate"), str):
        found["gate"] = new_option("gate", found["gate"])
    if isinstance(faults := found.get("faults"), list):
        found["faults"] = [
            {"kind": FaultKind.UNKNOWN, "message": fault} if isinstance(fault, str) else fault for fault in faults
        ]
    return found


def _with_systems(values: Mapping[str, Any]) -> dict[str, Any]:
    """Split the verdict of the first schema by system; metrics ended with the system's name, reasons began with it."""
    config, verdict = values.get("config"), values.get("verdict")
    task = config.get("task") if isinstance(config, dict) else None
    names = task.get("systems") if isinstance(task, dict) else None
    if not isinstance(verdict, dict) or not isinstance(names, list) or not names:
        return dict(values)
    systems = {str(name): _on(str(name), verdict) for name in names}
    return {**values, "verdict": {**verdict, "systems": systems}}


def _on(name: str, verdict: Mapping[str, Any]) -> dict[str, Any]:
    behind, before = f"/{name}", f"{name}: "
    criteria = [
        {**criterion, "metric": criterion["metric"].removesuffix(behind)}
        for criterion in verdict["criteria"]
        if criterion["metric"].endswith(behind)
    ]
    reasons = [reason.removeprefix(before) for reason in verdict["reasons"] if reason.startswith(before)]
    return {"decision": "NO-GO" if reasons else "GO", "gate": verdict["gate"], "criteria": criteria, "reasons": reasons}
