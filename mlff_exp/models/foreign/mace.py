"""MACE (Batatia et al., Advances in Neural Information Processing Systems 35, 2022) on our edges."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from torch import Tensor, nn

from mlff_exp.common import expand_home
from mlff_exp.config import ConfigError
from mlff_exp.models.adapters.mace import PACKAGE, MACEModel
from mlff_exp.models.foreign.settings import default_dtype, quiet, settings_kept
from mlff_exp.models.foreign.truth import Truth
from mlff_exp.models.graph import Edges

# Errors of a file that holds no network, or one of another version.
UNUSABLE = (AttributeError, EOFError, ImportError, KeyError, RuntimeError, TypeError, UnpicklingError)
N_COMPARED = 4  # atoms of the structure that is compared with the calculator
# Reference energies of thousands of eV are added in FP32 by the calculator.
ROUNDING = 4 * float(torch.finfo(torch.float32).eps)


class MACE(nn.Module):
    """A MACE of neutral systems, without the energies of isolated atoms.

    Args:
        net: the network in a file of ``mace-torch``.
        head: name of one of its heads; None for the only head, or the head called default.

    Raises:
        ValueError: the network needs more than atoms and edges, or there is no such head.
    """

    kind: Tensor

    def __init__(self, net: Any, head: str | None = None) -> None:
        super().__init__()
        _refuse_other_networks(net)
        self.net, self.head = net, _head(net, head)
        self.cutoffs = (float(net.r_max),)
        numbers = net.atomic_numbers.tolist()
        energies = torch.atleast_2d(net.atomic_energies_fn.atomic_energies)[self.head]
        self.elements = dict(zip(numbers, energies.tolist(), strict=True))
        net.atomic_energies_fn.atomic_energies.zero_()  # added outside, in FP64
        kind = torch.zeros(len(chemical_symbols), dtype=torch.int64)
        kind[numbers] = torch.arange(len(numbers))
        self.register_buffer("kind", kind)

    def forward(self, numbers: Tensor, system: Tensor, n_systems: int, edges: Edges) -> Tensor:
        """Compute the energy of each atom, as `GraphForceField.forward` says."""
        ((index, vectors),) = edges
        # All atoms are at one place, so that the shifts are the vectors.
        data = {
            "node_attrs": nn.functional.one_hot(self.kind[numbers], len(self.elements)).to(vectors.dtype),
            "edge_index": index.flip(0), "shifts": -vectors, "unit_shifts": torch.zeros_like(vectors),
            "positions": vectors.new_zeros(len(numbers), 3), "cell": vectors.new_zeros(n_systems, 3, 3),
            "batch": system, "ptr": system.new_zeros(n_systems + 1),
            "head": system.new_full((n_systems,), self.head),
        }  # fmt: skip
        # PyTorch would optimise the parts in TorchScript at their first call, and fails to while it records a graph.
        unoptimised = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]
        with default_dtype(vectors.dtype), unoptimised:
            energies: Tensor = self.net(data, compute_force=False)["node_energy"]
        return energies


def make(options: MACEModel, trust: Sequence[str]) -> MACE:
    """Load the network of a file, if the command line trusts the file.

    Raises:
        ConfigError: the command line does not trust files of MACE.
        ImportError: ``mace-torch`` is not installed.
        ValueError: the file can't be used.
    """
    if PACKAGE not in trust:  # nothing is imported and nothing of the file is read before
        raise ConfigError(
            f"model.checkpoint={options.checkpoint}: a file of MACE is a pickle, and loading it runs the code in it. "
            f"If you know where the file is from, say trust=[{PACKAGE}] on the command line"
        )
    return MACE(_load(options), options.head)


def truth(options: MACEModel) -> Truth:
    """Return the comparison with the calculator of ``mace-torch``: the same file, on a cell of its first elements."""
    net = _load(options)
    head = _head(net, options.head)
    numbers = [int(net.atomic_numbers[index % len(net.atomic_numbers)]) for index in range(N_COMPARED)]

    def calculator(device: str, stress: bool = True) -> Any:  # it always gives stress
        from mace.calculators import MACECalculator

        heads = getattr(net, "heads", None)
        chosen = {} if heads is None else {"head": heads[head]}
        single = deepcopy(net).float().to(device)
        return MACECalculator(models=[single], device=device, default_dtype="float32", **chosen)

    spacing = min(2.4 * float(covalent_radii[numbers].max()), 0.6 * float(net.r_max))
    corners = np.array([(0, 0, 0), (1, 0.2, 0.1), (0.1, 1.1, 0.2), (0.2, 0.1, 0.9)])
    cell = Atoms(numbers, spacing * corners, cell=spacing * np.diag([2.0, 2.2, 1.9]), pbc=True)
    reference = float(net.atomic_energies_fn.atomic_energies.abs().max())
    packages = ("mace-torch", "e3nn", "torch")
    energy_ev_per_atom = 5e-6 + ROUNDING * reference
    return Truth(calculator, cell, packages, energy_ev_per_atom, force_ev_per_ang=1e-4, stress_ev_per_ang3=1e-6)


def _load(options: MACEModel) -> Any:
    """Load the file of a network, which runs its code; only `make` asks whether it may."""
    path = expand_home(options.checkpoint)
    with settings_kept(), quiet():
        import mace  # noqa: F401 (its e3nn can be imported only after it)

        try:
            return torch.load(path, map_location="cpu", weights_only=False)
        except UNUSABLE as error:
            reason = next(iter(str(error).strip().splitlines()), "")
            raise ValueError(f"{path} is no model of MACE: {type(error).__name__}: {reason}") from error


def _refuse_other_networks(net: Any) -> None:
    from mace import modules

    if type(net) not in (modules.MACE, modules.ScaleShiftMACE):
        raise ValueError(f"it holds a {type(net).__name__}: only MACE and ScaleShiftMACE give energies alone")
    if hasattr(net, "joint_embedding"):
        raise ValueError(f"it needs {', '.join(net.embedding_specs)} of a system, which our engines do not pass on")


def _head(net: Any, asked: str | None) -> int:
    """Return the index of a head, chosen as the calculator of the package does."""
    heads = list(getattr(net, "heads", None) or ["Default"])
    if asked is not None and asked not in heads:
        raise ValueError(f"model.head={asked!r} is not one of: {', '.join(heads)}")
    found = [
        index for index, name in enumerate(heads) if name == asked or (asked is None and name.lower() == "default")
    ]
    if len(heads) > 1 and not found:
        raise ValueError(f"it has several heads: give model.head, one of {', '.join(heads)}")
    return found[0] if found else 0
