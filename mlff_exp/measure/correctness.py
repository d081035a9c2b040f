"""Whether an engine computes what its model says; looked at before anything is timed.

Compilers have returned wrong sums without a word for single shapes of batch, so every shape is looked at by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mlff_exp.config import Precision
from mlff_exp.engines import Engine, EngineError, check_finite
from mlff_exp.structures import AtomicBatch

FORCE_FLOOR_EV_PER_ANG = 0.1  # relative errors of forces that almost vanish say nothing


@dataclass(frozen=True)
class Tolerance:
    """How far an engine may be from eager FP64 of the same weights.

    Attributes:
        force: ‖F − F₆₄‖ / ‖F₆₄‖.
        energy_mev_per_atom: largest of all systems.
        step_ang: of central differences of the engine's own energy; None where its energy is too coarse for them.
        slope_ev_per_ang: largest difference of such a slope from the force along it.
    """

    force: float
    energy_mev_per_atom: float
    step_ang: float | None = None
    slope_ev_per_ang: float = 0.0


TOLERANCES: dict[Precision, Tolerance] = {
    "fp64": Tolerance(1e-11, 1e-8, 1e-3, 1e-5),
    "fp32": Tolerance(1e-5, 0.01, 1e-2, 5e-3),
    "tf32": Tolerance(1e-2, 5.0),  # as many bits of a product's operands as FP16
    "fp16_autocast": Tolerance(1e-2, 5.0),
    "bf16_autocast": Tolerance(5e-2, 30.0),
}


def require_correct(engine: Engine, reference: Engine, batch: AtomicBatch, precision: Precision, seed: int = 0) -> None:
    """Compare an engine on one batch with eager FP64, and its forces with differences of its own energy.

    Args:
        engine: at ``precision``.
        reference: eager FP64 of the same weights.
        batch: of any geometry that is not a minimum.
        precision: whose tolerances hold.
        seed: of the directions in which energies are differenced.

    Raises:
        EngineError: saying what is how far off.
        FloatingPointError: NaN or infinity.
    """
    allowed = TOLERANCES[precision]
    where = f"{engine.name} at {precision} on {batch.n_systems} systems of {batch.n_slots} slots"
    prediction, expected = engine(batch), reference(batch)
    check_finite(prediction, batch, precision)
    if bool((prediction.forces[~batch.is_atom] != 0).any()):
        raise EngineError(f"{where}: padding feels forces")
    n_atoms = batch.per_system(batch.is_atom).sum(dim=1).clamp(min=1)
    energy_error = 1e3 * float(((prediction.energy - expected.energy).abs() / n_atoms).max())
    size = max(float(expected.forces.norm()), FORCE_FLOOR_EV_PER_ANG * batch.n_atoms**0.5)
    force_error = float((prediction.forces - expected.forces).norm()) / size
    if not energy_error <= allowed.energy_mev_per_atom:
        raise EngineError(
            f"{where}: energies are {energy_error:.2g} meV/atom off eager FP64, allowed {allowed.energy_mev_per_atom:g}"
        )
    if not force_error <= allowed.force:
        raise EngineError(f"{where}: forces are {force_error:.2g} off eager FP64, relative, allowed {allowed.force:g}")
    if allowed.step_ang is None:
        return
    directions = _directions(batch, seed)
    # A force field that is not smooth fails by itself; that is no fault of the engine.
    own = float(slope_errors(reference, batch, directions, allowed.step_ang).max())
    slope_error = float(slope_errors(engine, batch, directions, allowed.step_ang).max())
    if not slope_error <= allowed.slope_ev_per_ang + own:
        raise EngineError(
            f"{where}: forces differ by {slope_error:.2g} eV/Å from differences of the energy, "
            f"allowed {allowed.slope_ev_per_ang + own:.2g}"
        )


def slope_errors(engine: Engine, batch: AtomicBatch, directions: Tensor, step: float) -> Tensor:
    """[n_systems] difference of the force along a direction from central differences of the energy, eV/Å.

    Fourth order: E′ = (E(−2h) − 8 E(−h) + 8 E(h) − E(2h)) / 12h.

    Args:
        engine: any.
        batch: neighbours must hold two steps away.
        directions: [n_rows, 3], of length 1 for each system.
        step: h, Å.
    """
    minus_two, minus, plus, plus_two = (
        engine(batch.with_positions(batch.positions + multiple * step * directions)).energy
        for multiple in (-2, -1, 1, 2)
    )
    slope = (minus_two - 8 * minus + 8 * plus - plus_two) / (12 * step)
    along = batch.per_system(engine(batch).forces * directions).sum(dim=(1, 2))
    return (slope + along).abs()


def _directions(batch: AtomicBatch, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(batch.positions.shape, generator=generator, dtype=torch.float64).to(batch.positions.device)
    moves = batch.per_system(drawn * batch.is_atom.unsqueeze(-1))
    lengths = moves.square().sum(dim=(1, 2), keepdim=True).sqrt().clamp(min=1e-12)
    return (moves / lengths).flatten(0, 1)
