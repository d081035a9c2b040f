"""Whether the forces of an engine are minus the gradient of its own energy, on the batch that it moves."""

from __future__ import annotations

import numpy as np
import torch

from mlff_exp.dynamics.checks import MAX_DIFFERENCED_COORDINATES
from mlff_exp.engines import Engine
from mlff_exp.measure import circulation_error, energy_rounding, gradient_errors, loop_work
from mlff_exp.structures import AtomicBatch

DISPLACEMENT_ANG = 0.05
MIN_LOOPS = 4  # of each system

Errors = list[float]


def circulation_errors(engine: Engine, batch: AtomicBatch, n_starts: int, rng: np.random.Generator) -> Errors:
    """`measure.circulation_error` of each system of a batch.

    The batch keeps its shape, because an engine may have been compiled for it.

    Args:
        engine: gives the forces.
        batch: each system near its minimum, ``n_starts`` times one after the other; neighbours with a skin.
        n_starts: copies of each system.
        rng: draws the loops.
    """
    rounds = [loop_work(engine, batch, rng) for _ in range(-(-MIN_LOOPS // n_starts))]
    work, moved = (np.stack(part).reshape(len(rounds), -1, n_starts) for part in zip(*rounds, strict=True))
    return [circulation_error(work[:, index], moved[:, index]) for index in range(work.shape[1])]


def own_difference_errors(engine: Engine, batch: AtomicBatch, n_starts: int, rng: np.random.Generator) -> Errors:
    """Largest of the `measure.gradient_errors` of each system, by the engine's own energy, eV/Å.

    Args:
        engine: gives energies and forces.
        batch: as for `circulation_errors`.
        n_starts: copies of each system.
        rng: draws displacements and coordinates.
    """
    is_atom = batch.is_atom.unsqueeze(-1)
    away = torch.from_numpy(rng.normal(scale=DISPLACEMENT_ANG, size=tuple(batch.positions.shape)))
    displaced = batch.with_positions(batch.positions + away.to(batch.positions.device) * is_atom)
    coordinates = [
        rng.permutation(3 * int(number)) for number in batch.per_system(batch.is_atom).sum(dim=1)[::n_starts]
    ]
    n_chosen = min(MAX_DIFFERENCED_COORDINATES, max(map(len, coordinates)))
    errors, rounding_ev = [], None
    for first in range(0, n_chosen, n_starts):
        chosen = [own[(first + start) % len(own)] for own in coordinates for start in range(n_starts)]
        directions = torch.zeros(batch.n_systems, 3 * batch.n_slots, dtype=torch.float64)
        directions[torch.arange(batch.n_systems), torch.tensor(chosen)] = 1
        along = directions.view(-1, 3).to(batch.positions.device)
        rounding_ev = energy_rounding(engine, displaced, along) if rounding_ev is None else rounding_ev
        found = gradient_errors(engine, displaced, along, rounding_ev)
        errors.append(found.view(-1, n_starts).amax(dim=1).cpu().numpy())
    return [float(error) for error in np.max(errors, axis=0)]
