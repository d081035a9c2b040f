"""Check that an engine computes the energy and forces of its model, before anything is timed.

Compilers have returned wrong sums without an error for single shapes of a batch. Every shape is therefore checked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mlff_exp.config import Precision
from mlff_exp.engines import Engine, EngineError, check_finite
from mlff_exp.structures import AtomicBatch

FORCE_FLOOR_EV_PER_ANG = 0.1  # the relative error of nearly zero forces has no meaning


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed differences of an engine from eager FP64 with the same weights.

    Attributes:
        force: ‖F − F₆₄‖ / ‖F₆₄‖.
        energy_mev_per_atom: largest energy error of all systems, meV/atom.
        step_ang: step of central differences of the engine's own energy, Å; None where the energy is too coarse for
            them.
        slope_ev_per_ang: largest difference between such a slope and the force, eV/Å.
    """

    force: float
    energy_mev_per_atom: float
    step_ang: float | None = None
    slope_ev_per_ang: float = 0.0


TOLERANCES: dict[Precision, Tolerance] = {
    "fp64": Tolerance(1e-11, 1e-8, 1e-3, 1e-5),
    "fp32": Tolerance(1e-5, 0.01, 1e-2, 5e-3),
    "tf32": Tolerance(1e-2, 5.0),  # the operands of a product have as many bits as in FP16
    "fp16_autocast": Tolerance(1e-2, 5.0),
    "bf16_autocast": Tolerance(5e-2, 30.0),
}


def require_correct(engine: Engine, reference: Engine, batch: AtomicBatch, precision: Precision, seed: int = 0) -> None:
    """Compare an engine on one batch with eager FP64, and its forces with differences of its own energy.

    Args:
        engine: an engine at ``precision``.
        reference: eager FP64 engine with the same weights.
        batch: structures that are not at a minimum.
        precision: selects the tolerances.
        seed: random seed of the directions in which energies are differenced.

    Raises:
        EngineError: a difference exceeds its tolerance. The message gives both.
        FloatingPointError: an energy or a force is NaN or infinite.
    """
    allowed = TOLERANCES[precision]
    where = f"{engine.name} at {precision} on {batch.n_systems} systems of {batch.n_slots} slots"
    prediction, expected = engine(batch), reference(batch)
    check_finite(prediction, batch, precision)
    if bool((prediction.forces[~batch.is_atom] != 0).any()):
        raise EngineError(f"{where}: there are forces on padding")
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
    # If the force field itself is not smooth, that is no error of the engine.
    own = float(slope_errors(reference, batch, directions, allowed.step_ang).max())
    slope_error = float(slope_errors(engine, batch, directions, allowed.step_ang).max())
    if not slope_error <= allowed.slope_ev_per_ang + own:
        raise EngineError(
            f"{where}: forces differ by {slope_error:.2g} eV/Å from differences of the energy, "
            f"allowed {allowed.slope_ev_per_ang + own:.2g}"
        )


def slope_errors(engine: Engine, batch: AtomicBatch, directions: Tensor, step: float) -> Tensor:
    """Return the difference between the force along a direction and central differences of the energy.

    Fourth order: E′ = (E(−2h) − 8 E(−h) + 8 E(h) − E(2h)) / 12h.

    Args:
        engine: any engine.
        batch: its neighbours must be valid within two steps.
        directions: [n_rows, 3], of length 1 for each system.
        step: h, Å.

    Returns:
        [n_systems] eV/Å.
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
