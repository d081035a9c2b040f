"""SO3LR (Kabylda et al., J. Am. Chem. Soc. 2025, 147, 33723) on our edges."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

import torch
from ase import Atoms
from ase.data import atomic_numbers
from torch import Tensor, nn

from mlff_exp.models.adapters.so3lr import SO3LRModel
from mlff_exp.models.foreign.settings import default_dtype, quiet
from mlff_exp.models.foreign.truth import Truth
from mlff_exp.models.graph import Edges

# As the calculator of the package sets them; the file of weights says neither.
LONG_CUTOFF_ANG = 12.0
DISPERSION_DAMPING_ANG = 2.0
# What it was trained on. The file holds numbers for other elements too, as training began with them.
TRAINED = ("H", "C", "N", "O", "F", "P", "S", "Cl")


class SO3LR(nn.Module):
    """SO3LR of neutral systems without unpaired electrons.

    Args:
        net: as in the file of the package.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        net.r_max_lr, net.dispersion_energy_cutoff_lr_damping = LONG_CUTOFF_ANG, DISPERSION_DAMPING_ANG
        self.cutoffs = (float(net.r_max), LONG_CUTOFF_ANG)
        shifts = net.atomic_energy_output_block.energy_shifts
        self.elements = {atomic_numbers[symbol]: float(shifts[atomic_numbers[symbol] - 1]) for symbol in TRAINED}
        shifts.data.zero_()  # added outside, in FP64: in FP32 they would leave few digits for the rest

    def forward(self, numbers: Tensor, system: Tensor, n_systems: int, edges: Edges) -> Tensor:
        """Energies of the atoms, as `GraphForceField.forward`."""
        (near, short), (far, long) = edges
        per_system = short.new_zeros(n_systems)
        data = {
            "atomic_numbers": numbers, "batch": system,
            "node_attrs": nn.functional.one_hot(numbers - 1, self.net.num_elements).to(short.dtype),
            "edge_index": near, "shifts": short, "edge_index_lr": far, "shifts_lr": long,
            # All atoms at one place, so that the shifts are the vectors.
            "positions": short.new_zeros(len(numbers), 3), "cell": short.new_zeros(n_systems, 3, 3),
            "total_charge": per_system, "total_spin": per_system,
            "head": torch.zeros_like(system[:1]).expand(n_systems), "ptr": system.new_zeros(n_systems + 1),
        }  # fmt: skip
        before = dict(vars(self.net))
        try:
            with default_dtype(short.dtype):  # the network makes some constants of the default type
                energies: Tensor = self.net(data, compute_force=False)["node_energy"].squeeze(-1)
        finally:  # it keeps tensors of the call, with which it could not be copied
            vars(self.net).clear()
            vars(self.net).update(before)
        return energies


def make(options: SO3LRModel, trust: Sequence[str]) -> SO3LR:
    """The network with the weights of the package.

    The file is a pickle. It is read only because it is part of the installed package, whose code runs anyway.

    Raises:
        ImportError: ``so3krates-torch`` is not installed.
    """
    with quiet():
        import so3krates_torch.pretrained

        file = resources.files(so3krates_torch.pretrained) / "so3lr" / "so3lr.model"
        with resources.as_file(file) as path:
            return SO3LR(torch.load(path, map_location="cpu", weights_only=False))


def truth(options: SO3LRModel) -> Truth:
    """The calculator of the package, and a molecule of four elements in a cell."""

    def calculator(device: str, stress: bool = False) -> Any:
        from so3krates_torch.calculator.so3 import SO3LRCalculator

        return SO3LRCalculator(device=device, compute_stress=stress)

    cell = Atoms(
        "OCHNH",
        [(0, 0, 0), (1.2, 0.2, 0.1), (1.8, 1.1, 0.2), (1.9, -0.9, -0.3), (2.9, -0.8, -0.2)],
        cell=[6, 6.5, 7],
        pbc=True,
    )
    packages = ("so3krates-torch", "torch")
    return Truth(calculator, cell, packages, energy_ev_per_atom=1e-4, force_ev_per_ang=2e-4, stress_ev_per_ang3=1e-6)
