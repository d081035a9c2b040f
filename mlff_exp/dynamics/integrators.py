"""Integrators of a batch of systems, on any device."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from mlff_exp.dynamics.state import MDState
from mlff_exp.engines import Prediction


def velocity_verlet(
    state: MDState, n_steps: int, timestep: float, masses: Tensor, evaluate: Callable[[Tensor], Prediction]
) -> None:
    """Do steps of velocity Verlet in place (Swope et al., J. Chem. Phys. 76, 637 (1982)).

    The two half kicks between two steps are merged, because every small kernel costs a captured step a microsecond.

    Args:
        state: the state, which is changed in place except for its count of steps.
        n_steps: the number of steps, at least one.
        timestep: the timestep, ASE units.
        masses: [n_rows, 1] u.
        evaluate: gives energies and forces at positions [n_rows, 3] Å.
    """
    state.velocities.addcdiv_(state.forces, masses, value=0.5 * timestep)
    for left in reversed(range(n_steps)):
        state.positions.add_(state.velocities, alpha=timestep)
        prediction = evaluate(state.positions)
        state.velocities.addcdiv_(prediction.forces, masses, value=timestep if left else 0.5 * timestep)
    state.energy.copy_(prediction.energy)
    state.forces.copy_(prediction.forces)


def langevin_step(
    positions: Tensor,
    velocities: Tensor,
    forces: Tensor,
    *,
    timestep: float,
    masses: Tensor,
    kept: float,
    kick: Tensor,
    evaluate: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Do one step of Langevin dynamics by the BAOAB splitting (Leimkuhler & Matthews, doi:10.1093/amrx/abs010).

    Args:
        positions: [n_rows, 3] Å.
        velocities: [n_rows, 3] ASE units.
        forces: [n_rows, 3] eV/Å at the positions.
        timestep: ASE units.
        masses: [n_rows, 1] u.
        kept: exp(−γ dt), the part of a velocity that friction leaves.
        kick: [n_rows, 3] velocities that the bath adds, ASE units: √(1 − kept²) times velocities at its temperature.
        evaluate: gives forces [n_rows, 3] at positions.

    Returns:
        Positions, velocities and forces after the step.
    """
    velocities = velocities + 0.5 * timestep * forces / masses
    positions = positions + 0.5 * timestep * velocities
    velocities = kept * velocities + kick
    positions = positions + 0.5 * timestep * velocities
    forces = evaluate(positions)
    return positions, velocities + 0.5 * timestep * forces / masses, forces
