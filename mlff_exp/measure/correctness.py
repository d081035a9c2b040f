"""Check that an engine computes the energy, forces and stress of its model, before anything is timed.

Compilers have returned wrong sums without an error for single shapes of a batch. Every shape is therefore checked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ase.units import GPa
from torch import Tensor

from mlff_exp.config import Precision
from mlff_exp.engines import Engine, EngineError, check_finite
from mlff_exp.measure.differences import slope_errors
from mlff_exp.structures import AtomicBatch

FORCE_FLOOR_EV_PER_ANG = 0.1  # the relative error of nearly zero forces has no meaning
OTHER_FORCE = 1e-3  # relative; more than FP32 rounds in any published force field, and less than any mistake makes
# Step and largest error of differences of the plain model's FP64 energy under strain. So small a step hardly meets the
# kinks that some models have at a cutoff; the energy's rounding makes 1e-7 GPa of it.
STRAIN_STEP, STRAIN_ERROR_GPA = 1e-5, 1e-3


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed differences of an engine from eager FP64 with the same weights.

    Attributes:
        force: ‖F − F₆₄‖ / ‖F₆₄‖.
        energy_mev_per_atom: largest energy error of all systems, meV/atom.
        stress_gpa: ‖σ − σ₆₄‖ of any system beyond ``force`` · ‖σ₆₄‖, GPa. Large contributions cancel in a stress, so
            that its error is not relative to it alone.
        step_ang: step of central differences of the engine's own energy, Å; None where the energy is too coarse for
            them.
        slope_ev_per_ang: largest difference between such a slope and the force, eV/Å.
    """

    force: float
    energy_mev_per_atom: float
    stress_gpa: float
    step_ang: float | None = None
    slope_ev_per_ang: float = 0.0


TOLERANCES: dict[Precision, Tolerance] = {
    "fp64": Tolerance(1e-11, 1e-8, 1e-9, 1e-3, 1e-5),
    "fp32": Tolerance(1e-5, 0.01, 1e-3, 1e-2, 5e-3),
    "tf32": Tolerance(1e-2, 5.0, 0.03),  # the operands of a product have as many bits as in FP16
    "fp16_autocast": Tolerance(1e-2, 5.0, 0.03),
    "bf16_autocast": Tolerance(5e-2, 30.0, 0.3),
}


def require_correct(engine: Engine, reference: Engine, batch: AtomicBatch, precision: Precision, seed: int = 0) -> None:
    """Compare an engine on one batch with eager FP64, and its forces with differences of its own energy.

    If both give stress, the engine's is compared with that of eager FP64, and the latter with differences of the FP64
    energy under strain.

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
    if prediction.stress is not None and expected.stress is not None:
        errors = _gpa(prediction.stress - expected.stress) - allowed.force * _gpa(expected.stress)
        if not float(errors.max()) <= allowed.stress_gpa:
            raise EngineError(
                f"{where}: the stress is {float(errors.max()):.2g} GPa off eager FP64, allowed {allowed.stress_gpa:g}"
            )
        strain_error = float(strain_errors(reference, batch, random_strain(seed)).max())
        if not strain_error <= STRAIN_ERROR_GPA:
            raise EngineError(
                f"{where}: the stress of eager FP64 differs by {strain_error:.2g} GPa from differences of the energy "
                f"under strain, allowed {STRAIN_ERROR_GPA:g}"
            )
    if allowed.step_ang is None:
        return
    directions = random_directions(batch, seed)
    # If the force field itself is not smooth, that is no error of the engine.
    own = float(slope_errors(reference, batch, directions, allowed.step_ang).max())
    slope_error = float(slope_errors(engine, batch, directions, allowed.step_ang).max())
    if not slope_error <= allowed.slope_ev_per_ang + own:
        raise EngineError(
            f"{where}: forces differ by {slope_error:.2g} eV/Å from differences of the energy, "
            f"allowed {allowed.slope_ev_per_ang + own:.2g}"
        )


def require_same_forces(engine: Engine, reference: Engine, batch: AtomicBatch) -> None:
    """Compare the forces of another program with eager FP64; how it rounds is its own affair.

    Args:
        engine: an engine that evaluates the same force field.
        reference: eager FP64 engine.
        batch: structures that are not at a minimum.

    Raises:
        EngineError: the forces are those of another force field. The message gives the difference.
    """
    forces, expected = engine(batch).forces, reference(batch).forces
    error = float((forces - expected).norm()) / max(float(expected.norm()), FORCE_FLOOR_EV_PER_ANG)
    if not error <= OTHER_FORCE:
        raise EngineError(f"{engine.name}: forces are {error:.2g} off eager FP64, relative, allowed {OTHER_FORCE:g}")


def strain_errors(engine: Engine, batch: AtomicBatch, strain: Tensor, step: float = STRAIN_STEP) -> Tensor:
    """Return the difference between the stress along a strain and central differences of the energy.

    Args:
        engine: an engine that gives stress.
        batch: systems that are periodic in all three directions.
        strain: ε, [3, 3], symmetric, of length 1.
        step: largest multiple of the strain.

    Returns:
        |σ : ε − (1/V) dE/dh| at (1 + h ε), [n_systems] GPa; zero for systems that are padding.

    Raises:
        ValueError: the engine gives no stress of this batch.
    """
    stress, strain = engine(batch).stress, strain.to(batch.cell.device)
    if stress is None:
        raise ValueError(f"{engine.name} gives no stress of this batch")
    plus, minus = (engine(batch.strained(sign * step * strain)).energy for sign in (1, -1))
    volumes = torch.where(batch.volumes > 0, batch.volumes, 1.0)
    errors: Tensor = ((stress * strain).sum(dim=(1, 2)) - (plus - minus) / (2 * step * volumes)).abs() / GPa
    return errors


def _gpa(stress: Tensor) -> Tensor:
    """‖σ‖ of each system, GPa."""
    sizes: Tensor = stress.flatten(1).norm(dim=1) / GPa
    return sizes


def random_strain(seed: int) -> Tensor:
    """Draw a symmetric strain of length 1, [3, 3]."""
    drawn = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    strain: Tensor = (drawn + drawn.T) / (drawn + drawn.T).norm()
    return strain


def random_directions(batch: AtomicBatch, seed: int) -> Tensor:
    """Draw a direction in the space of all coordinates, [n_rows, 3], of length 1 for each system of a batch."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(batch.positions.shape, generator=generator, dtype=torch.float64).to(batch.positions.device)
    moves = batch.per_system(drawn * batch.is_atom.unsqueeze(-1))
    lengths = moves.square().sum(dim=(1, 2), keepdim=True).sqrt().clamp(min=1e-12)
    return (moves / lengths).flatten(0, 1)
