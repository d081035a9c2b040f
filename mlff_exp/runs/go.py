"""Look up the recorded verdict on the weights before the first run of a sweep."""

from __future__ import annotations

from dataclasses import asdict

from mlff_exp.config import NATIVE, ConfigError
from mlff_exp.results import DECIDING_PS, model_word
from mlff_exp.runs.host import SweepHost
from mlff_exp.runs.preparing import PreparedSweep
from mlff_exp.tracking import RequiredGo, Store, find_go


def gate_decision(host: SweepHost, prepared: PreparedSweep, store: Store | None) -> str:
    """``GO`` where a recorded verdict says so, else ``no_verdict``.

    Args:
        host: says where runs leave their results.
        prepared: the sweep.
        store: the store to search, or None to search the results on disk.

    Raises:
        ConfigError: the experiment wants a GO, has no gate of its own, and none is recorded.
    """
    master = prepared.master
    if not master.gate_required or master.gate.name == "off" or master.engine.name == NATIVE or prepared.jobs[0].gate:
        return "no_verdict"
    # Imported here: it imports PyTorch.
    from mlff_exp.models import load_model

    # The command line has allowed the code that this runs, or nothing was composed.
    weights = load_model(master.model, master.trust).weights_sha256
    named = model_word(asdict(master.model))
    wanted = [RequiredGo(weights, master.gate, one.values, one.usual) for one in prepared.systems]
    wanted = wanted or [RequiredGo(weights, master.gate)]
    missing = next((one for one in wanted if not find_go(store, one, host.roots)), None)
    if missing is None:
        return "GO"
    of = "" if missing.system is None else f" on system {missing.system_words}"
    steps = ""
    if missing.usual is not None:
        steps = f" in steps of {missing.usual.timestep_fs:g} fs at {missing.usual.temperature_k:g} K"
    raise ConfigError(
        f"{master.sweep.name} wants a GO of gate={master.gate.name} for {named} "
        f"({weights[:12]}){of}, over {DECIDING_PS:g} ps{steps}, with these limits, and none is recorded: "
        f"run experiment=nve_gate{'' if missing.system is None else ' on this system'} first, or say gate=off"
    )
