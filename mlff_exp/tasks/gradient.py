"""What ``task=nve`` measures before anything moves: whether forces are minus the gradient of the energy."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from ase import Atoms

from mlff_exp.config import NATIVE, Config
from mlff_exp.dynamics import Dynamics, circulation_errors, finite_difference_error, own_difference_errors
from mlff_exp.engines import Engine

FINE = ("fp64", "fp32")  # precisions in which an engine can be held against its own energy; others are too coarse
DIFFERENCES, CIRCULATION = "finite_difference_error_ev_per_ang", "circulation_error"
# The same of the engine itself, by its own energies and forces.
ENGINE_DIFFERENCES, ENGINE_CIRCULATION = f"engine_{DIFFERENCES}", f"engine_{CIRCULATION}"


def gradient_metrics(
    config: Config, engine: Engine, reference: Engine, dynamics: Dynamics, relaxed: Mapping[str, Atoms]
) -> dict[str, dict[str, float]]:
    """Metrics of each system by name; of those that take many calls only what the gate asks for.

    Args:
        config: of the run.
        engine: under test.
        reference: FP64 of the same weights; the engine itself if it runs as it is.
        dynamics: with the engine, every system so many times as there are starts; nothing has moved.
        relaxed: systems at their minima, by name, in the order of the batch.
    """
    batch, n_starts, asked = dynamics.batch, config.task.replicas, config.gate.criteria.keys()
    found = {
        name: {DIFFERENCES: finite_difference_error(reference, atoms, np.random.default_rng(config.seed))}
        for name, atoms in relaxed.items()
    }
    measured: dict[str, list[float]] = {}
    if CIRCULATION in asked:
        measured[CIRCULATION] = circulation_errors(reference, batch, n_starts, np.random.default_rng(config.seed))
    excused = inapplicable_metrics(config.precision.name)
    if ENGINE_CIRCULATION in asked and ENGINE_CIRCULATION not in excused:
        rng = np.random.default_rng(config.seed)
        measured[ENGINE_CIRCULATION] = circulation_errors(engine, batch, n_starts, rng)
    if ENGINE_DIFFERENCES in asked and ENGINE_DIFFERENCES not in excused:
        rng = np.random.default_rng(config.seed)
        measured[ENGINE_DIFFERENCES] = own_difference_errors(engine, batch, n_starts, rng)
    for metric, values in measured.items():
        for name, value in zip(relaxed, values, strict=True):
            found[name][metric] = value
    return {
        name: {metric: value for metric, value in metrics.items() if math.isfinite(value)}
        for name, metrics in found.items()
    }


def inapplicable_metrics(precision: str) -> dict[str, str]:
    """Metrics of the engine itself that mean nothing at a precision, each with the reason.

    Args:
        precision: as in the configuration of a run.
    """
    if precision == NATIVE:
        reason = "the model runs as it is, so the criterion without engine_ says it"
    elif precision in FINE:
        return {}
    else:
        reason = f"{precision} is too coarse to tell a curl of the forces from rounding"
    return {ENGINE_DIFFERENCES: reason, ENGINE_CIRCULATION: reason}
