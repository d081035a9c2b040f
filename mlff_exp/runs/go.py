"""What is known of the weights before the first run of a sweep."""

from __future__ import annotations

from pathlib import Path

from mlff_exp.config import ConfigError
from mlff_exp.runs.planning import Plan
from mlff_exp.tracking import Store, found_go


def gate_decision(plan: Plan, store: Store | None) -> str:
    """``GO`` where a recorded verdict says so, else ``no_verdict``.

    Args:
        plan: of the sweep.
        store: to look in, or None to look at what runs left on disk.

    Raises:
        ConfigError: the experiment wants a GO, has no gate of its own, and none is recorded.
    """
    master = plan.master
    if not master.gate_required or master.gate.name == "off" or master.model.name == "ase" or plan.jobs[0].gate:
        return "no_verdict"
    # Imported here: it imports PyTorch.
    from mlff_exp.models import CheckpointError, load_checkpoint

    try:
        weights = load_checkpoint(master.model.checkpoint).weights_sha256
    except CheckpointError as error:
        raise ConfigError(f"model.checkpoint: {error}") from error
    if found_go(store, weights, master.gate, Path("outputs")):
        return "GO"
    raise ConfigError(
        f"{master.sweep.name} wants a GO of gate={master.gate.name} for {master.model.checkpoint} "
        f"({weights[:12]}), over 100 ps, with these limits, and none is recorded: run experiment=nve_gate first, "
        "or say gate=off"
    )
