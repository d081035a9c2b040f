"""What is known of the weights before the first run of a sweep."""

from __future__ import annotations

from mlff_exp.config import ConfigError, TorchModel
from mlff_exp.results import DECIDING_PS
from mlff_exp.runs.host import Host
from mlff_exp.runs.planning import Plan
from mlff_exp.tracking import Store, WantedGo, found_go


def gate_decision(host: Host, plan: Plan, store: Store | None) -> str:
    """``GO`` where a recorded verdict says so, else ``no_verdict``.

    Args:
        host: says where runs leave their results.
        plan: of the sweep.
        store: to look in, or None to look at what runs left on disk.

    Raises:
        ConfigError: the experiment wants a GO, has no gate of its own, and none is recorded.
    """
    master = plan.master
    if not master.gate_required or master.gate.name == "off" or master.model.name == "ase" or plan.jobs[0].gate:
        return "no_verdict"
    # Imported here: it imports PyTorch.
    from mlff_exp.models import CheckpointError, FactoryError, load_checkpoint, make_outside_model

    try:
        if isinstance(master.model, TorchModel):  # the command line has allowed its factory, or nothing was composed
            named = master.model.factory
            weights = make_outside_model(named, master.model.arguments).weights_sha256
        else:
            named = master.model.checkpoint
            weights = load_checkpoint(named).weights_sha256
    except FactoryError as error:
        raise ConfigError(f"model.factory={error}") from error
    except CheckpointError as error:
        raise ConfigError(f"model.checkpoint: {error}") from error
    wanted = [WantedGo(weights, master.gate, system) for system in plan.systems]
    wanted = wanted or [WantedGo(weights, master.gate)]
    missing = next((one for one in wanted if not found_go(store, one, host.roots)), None)
    if missing is None:
        return "GO"
    of = "" if missing.system is None else f" on system {missing.system_words}"
    raise ConfigError(
        f"{master.sweep.name} wants a GO of gate={master.gate.name} for {named} "
        f"({weights[:12]}){of}, over {DECIDING_PS:g} ps, with these limits, and none is recorded: "
        f"run experiment=nve_gate{'' if missing.system is None else ' on this system'} first, or say gate=off"
    )
