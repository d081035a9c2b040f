"""Do the integrators sample what they should?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mlff_exp.dynamics.integrators import langevin_step, velocity_verlet
from mlff_exp.dynamics.state import MDState
from mlff_exp.engines.prediction import Prediction

STIFFNESS = torch.tensor(2.0, dtype=torch.float64)


def spring(positions: Tensor) -> Prediction:
    return Prediction(0.5 * STIFFNESS * positions.square().sum().reshape(1), -STIFFNESS * positions)


def test_steps_done_at_once_are_steps_done_one_by_one() -> None:
    masses = torch.tensor([[1.0], [4.0]], dtype=torch.float64)
    first = torch.tensor([[1.0, 0.0, 0.5], [0.0, -1.0, 0.2]], dtype=torch.float64)
    start = MDState(first, torch.zeros_like(first), spring(first).forces, spring(first).energy)
    together, alone = start.copy(), start.copy()
    velocity_verlet(together, 50, 0.02, masses, spring)
    for _ in range(50):
        velocity_verlet(alone, 1, 0.02, masses, spring)
    for name in ("positions", "velocities", "forces", "energy"):
        torch.testing.assert_close(getattr(together, name), getattr(alone, name), rtol=0, atol=1e-13)
    exact = first * torch.cos((STIFFNESS / masses).sqrt() * 1.0)
    torch.testing.assert_close(together.positions, exact, rtol=0, atol=2e-4)


def test_langevin_dynamics_sample_the_temperature_of_the_bath() -> None:
    """⟨x²⟩ = kT/k and ⟨v²⟩ = kT/m: BAOAB has them exactly, and nearly so, for a spring."""
    generator, temperature, timestep, friction = torch.Generator().manual_seed(0), 0.3, 0.3, 1.0
    masses = torch.full((4000, 1), 2.0, dtype=torch.float64)
    positions = torch.zeros(4000, 3, dtype=torch.float64)
    velocities, forces, kept = positions.clone(), positions.clone(), math.exp(-friction * timestep)
    for _ in range(100):
        kick = math.sqrt(1 - kept**2) * (temperature / masses).sqrt()
        kick = kick * torch.randn(positions.shape, generator=generator, dtype=torch.float64)
        positions, velocities, forces = langevin_step(
            positions, velocities, forces,
            timestep=timestep, masses=masses, kept=kept, kick=kick, evaluate=lambda x: spring(x).forces,
        )  # fmt: skip
    assert abs(float(positions.square().mean()) * float(STIFFNESS) / temperature - 1) < 0.04
    assert abs(float((masses * velocities.square()).mean()) / temperature - 1) < 0.06
