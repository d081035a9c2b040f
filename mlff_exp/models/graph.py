"""Force fields that are written as a function of a graph: atomic numbers and edges with vectors.

Whoever writes one gives energies per atom. This module does the rest: it makes the vectors in FP64 from the neighbour
matrix, settles what padding and the skin of a list do, adds energies of isolated atoms in FP64 and sums per system.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Protocol, Self, runtime_checkable

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from mlff_exp.models.embedded import check_elements
from mlff_exp.models.painn import pair_vectors
from mlff_exp.models.protocol import ForceField
from mlff_exp.models.spec import Capabilities, has_own_forces
from mlff_exp.structures import AtomicBatch

Edges = Sequence[tuple[Tensor, Tensor]]
ANY_ELEMENT = 1  # atomic number of padding where a model takes any element


@runtime_checkable
class GraphForceField(Protocol):
    """The interface of a network of your own: a `torch.nn.Module` with two attributes and a forward.

    Attributes:
        cutoffs: Å, one list of edges for each: ``(5.0,)`` or ``(4.5, 12.0)``.
        elements: known atomic numbers, each with the energy of the isolated atom in eV, which is added outside of the
            network in FP64; None for a model that takes any element and whose energies need nothing added.

    A network that can do less than `Capabilities` says by default, or that has forces of its own, has a third
    attribute, ``capabilities``.
    """

    cutoffs: tuple[float, ...]
    elements: Mapping[int, float] | None

    def forward(self, numbers: Tensor, system: Tensor, n_systems: int, edges: Edges) -> Tensor:
        """Compute the energies of the atoms.

        Args:
            numbers: [n_rows] atomic numbers. Padding rows have a number that the model knows.
            system: [n_rows] index of the system that an atom belongs to. Padding rows have a system of their own.
            n_systems: how many systems there are, with that of the padding.
            edges: for each cutoff (index, vectors): index [2, n_edges] receiver and sender, vectors [n_edges, 3] from
                receiver to sender, Å, in the type of the model's weights. An edge that is padding, or longer than the
                cutoff, has the vector (cutoff, 0, 0) and no gradient. It stays in the list, so what the network makes
                of an edge has to be zero at the cutoff.

        Returns:
            [n_rows] eV. With ``capabilities.forces="own"`` a pair: the energies, and forces [n_rows, 3] eV/Å.
        """


class GraphModel(nn.Module):
    """A `GraphForceField` as the `ForceField` that engines see.

    Args:
        network: a `torch.nn.Module` that is a `GraphForceField`.

    Raises:
        TypeError: ``network`` is no such module, naming what is missing.
        ValueError: its cutoffs or its elements are no such numbers, or it claims to know charges.
    """

    reference_energies: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        missing = [name for name in ("cutoffs", "elements", "forward") if not hasattr(network, name)]
        if not isinstance(network, nn.Module) or missing:
            lacking = f" without {', '.join(missing)}" if missing else ""
            raise TypeError(
                f"{type(network).__name__} is no GraphForceField: it has to be a torch.nn.Module with cutoffs, "
                f"elements and forward, and this is a {type(network).__name__}{lacking}"
            )
        self.network = network
        cutoffs: Sequence[float] = getattr(network, "cutoffs")  # noqa: B009 (mypy takes attributes of a Module for tensors)
        self.cutoffs = tuple(float(cutoff) for cutoff in cutoffs)
        if not self.cutoffs or not all(0 < cutoff < float("inf") for cutoff in self.cutoffs):
            raise ValueError(f"cutoffs={self.cutoffs} must be one or more lengths in Å greater than 0")
        known: Mapping[int, float] | None = getattr(network, "elements")  # noqa: B009
        if known is not None and (not known or not all(number in range(1, len(chemical_symbols)) for number in known)):
            raise ValueError(f"elements={known} must be atomic numbers, each with its energy in eV, or None")
        self.elements = None if known is None else tuple(chemical_symbols[number] for number in known)
        self._padding_number = ANY_ELEMENT if known is None else next(iter(known))
        energies = torch.zeros(len(chemical_symbols), dtype=torch.float64)
        for number, energy in (known or {}).items():
            energies[number] = energy
        if not energies.isfinite().all():
            raise ValueError(f"elements={known}: an energy of an isolated atom is NaN or infinite")
        self.register_buffer("reference_energies", energies)  # part of what identifies the weights
        if (capabilities := getattr(network, "capabilities", None)) is not None:
            if not isinstance(capabilities, Capabilities):
                raise TypeError(f"capabilities={capabilities!r} must be mlff_exp.models.Capabilities")
            if capabilities.charged:
                raise ValueError("capabilities.charged=True: the forward of a GraphForceField is given no charges")
            self.capabilities = capabilities

    @property
    def cutoff(self) -> float:
        """The largest cutoff, Å."""
        return max(self.cutoffs)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights and buffers; FP64 for a network without any."""
        weights = chain(self.network.parameters(), self.network.buffers())
        return next((weight.dtype for weight in weights if weight.is_floating_point()), torch.float64)

    def cast(self, dtype: torch.dtype) -> Self:
        """Cast weights and floating-point buffers of the network in place; reference energies stay FP64."""
        self.network.to(dtype)
        return self

    def check_elements(self, symbols: Iterable[str]) -> None:
        """Refuse elements that the network does not know.

        Raises:
            ValueError: names them and the known ones.
        """
        if self.elements is not None:
            check_elements(symbols, self.elements)

    def forward(self, batch: AtomicBatch) -> Tensor | tuple[Tensor, Tensor]:
        """Evaluate the energy of each system, [n_systems] eV, FP64; with forces [n_rows, 3] eV/Å if it has its own.

        Raises:
            ValueError: the network returned something else.
        """
        numbers = torch.where(batch.is_atom, batch.atomic_numbers, self._padding_number)
        systems = torch.arange(batch.n_systems, device=numbers.device).repeat_interleave(batch.n_slots)
        systems = torch.where(batch.is_atom, systems, batch.n_systems)
        edges = [edges_within(batch, cutoff, self.dtype) for cutoff in self.cutoffs]
        returned = self.network(numbers, systems, batch.n_systems + 1, edges)
        own = has_own_forces(self)
        if own != isinstance(returned, tuple):
            raise ValueError(
                f"{type(self.network).__name__} returned {type(returned).__name__} with "
                f"capabilities.forces={'own' if own else 'gradient'!r}: energies and forces belong to 'own', energies "
                "alone to 'gradient'"
            )
        atomic, forces = returned if isinstance(returned, tuple) else (returned, None)
        if atomic.shape != numbers.shape:
            raise ValueError(
                f"{type(self.network).__name__} returned energies of shape {tuple(atomic.shape)}; "
                f"expected one for each of {len(numbers)} rows"
            )
        total = torch.where(batch.is_atom, atomic.double() + self.reference_energies[numbers], 0.0)
        energy = batch.per_system(total).sum(dim=-1)
        if forces is None:
            return energy
        if forces.shape != batch.positions.shape:
            raise ValueError(
                f"{type(self.network).__name__} returned forces of shape {tuple(forces.shape)}; "
                f"expected {tuple(batch.positions.shape)}"
            )
        return energy, torch.where(batch.is_atom.unsqueeze(-1), forces.double(), 0.0)


def as_force_field(model: nn.Module) -> ForceField:
    """Return a module as a `ForceField`: a `GraphForceField` as a `GraphModel`, and what is one already as it is.

    Raises:
        TypeError: it is neither. The message names what is missing.
        ValueError: its cutoffs or its elements are wrong.
    """
    is_network = isinstance(model, GraphForceField) and not isinstance(model, GraphModel)
    return model if isinstance(model, ForceField) and not is_network else GraphModel(model)


def edges_within(batch: AtomicBatch, cutoff: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Convert the neighbour matrix to a list of edges.

    Args:
        batch: its list holds at least all pairs within the cutoff.
        cutoff: Å.
        dtype: of the vectors.

    Returns:
        index [2, n_rows · n_columns] of receivers and senders, sorted by receiver, and the vectors
        [n_rows · n_columns, 3] Å between them, by the rule of `pair_vectors`. The columns are those of
        `AtomicBatch.within`.
    """
    batch = batch.within(cutoff)
    receivers = torch.arange(batch.neighbors.shape[0], device=batch.neighbors.device)
    receivers = receivers.repeat_interleave(batch.neighbors.shape[1])
    index = torch.stack([receivers, batch.neighbors.flatten()])
    return index, pair_vectors(batch, cutoff).flatten(0, 1).to(dtype)
