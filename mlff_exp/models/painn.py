"""PaiNN, the polarizable atom interaction network: the energy of an `AtomicBatch`.

Schütt, Unke & Gastegger, "Equivariant message passing for the prediction of tensorial properties and
molecular spectra", ICML 2021 (arXiv:2102.03150); equation numbers below are that paper's. What differs:
the cutoff function has two vanishing derivatives instead of one, colliding atoms feel a screened nuclear repulsion
instead of the network, and per-element reference energies are added in FP64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from ase.data import chemical_symbols, covalent_radii
from torch import Tensor, nn
from torch.nn import functional

from mlff_exp.models.embedded import Architecture, ElementEmbedding, EmbeddedNetwork
from mlff_exp.structures import AtomicBatch, gather_neighbors

COULOMB_EV_ANG = 14.399645  # e²/(4πε₀)
BOHR_ANG = 0.529177211
# Between these fractions of the sum of the covalent radii the network is faded out in favour of the repulsion: hardly
# any training data reaches there, and an extrapolated network can be attractive without bound.
CORE_INNER, CORE_OUTER = 0.45, 0.75
# ε of the norm √(v² + ε). Symmetry makes many vectors pass through zero, where a smaller ε leaves what is nearly a
# kink: at 1e-8 benzene drifts by 0.4 meV/atom/ps even in FP64.
NORM_SMOOTHING = 1e-2


class PaiNN(EmbeddedNetwork):
    """The PaiNN force field. It does not depend on compilation, precision or timing.

    Network weights may be cast to any dtype (`cast`); positions, energies and reference energies are FP64.

    Args:
        architecture: sizes and cutoff.
        reference_energies: eV per isolated atom of each element the model knows, by chemical symbol.
    """

    element_index: Tensor
    reference_energies: Tensor
    nuclear_charge: Tensor
    covalent_radius: Tensor

    def __init__(self, architecture: Architecture, reference_energies: Mapping[str, float]) -> None:
        super().__init__()
        self.architecture = architecture
        self.elements = tuple(reference_energies)
        features, n_elements = architecture.n_features, len(self.elements)

        # Row 0 of every per-element table is padding.
        element_index = torch.zeros(len(chemical_symbols), dtype=torch.int64)
        for index, symbol in enumerate(self.elements):
            element_index[chemical_symbols.index(symbol)] = index + 1
        numbers = [0] + [chemical_symbols.index(symbol) for symbol in self.elements]
        self.register_buffer("element_index", element_index, persistent=False)
        self.register_buffer(
            "reference_energies",
            torch.tensor([0.0, *reference_energies.values()], dtype=torch.float64),
            persistent=False,
        )
        self.register_buffer("nuclear_charge", torch.tensor(numbers, dtype=torch.float64), persistent=False)
        self.register_buffer(
            "covalent_radius",
            torch.tensor([float(covalent_radii[number]) if number else 1.0 for number in numbers], dtype=torch.float64),
            persistent=False,
        )

        self.embedding = ElementEmbedding(n_elements + 1, features, padding_idx=0)
        self.messages = nn.ModuleList(Message(features, architecture.n_rbf) for _ in range(architecture.n_interactions))
        self.updates = nn.ModuleList(Update(features) for _ in range(architecture.n_interactions))
        self.readout = nn.Sequential(nn.Linear(features, features // 2), nn.SiLU(), nn.Linear(features // 2, 1))

    def cast(self, dtype: torch.dtype) -> PaiNN:
        """Cast the network weights in place; reference energies stay FP64."""
        for parameter in self.parameters():
            parameter.data = parameter.data.to(dtype)
        return self

    def forward(self, batch: AtomicBatch) -> Tensor:
        """Evaluate the energy of each system, [n_systems] eV, FP64."""
        element = self.element_index[batch.atomic_numbers]
        vectors = pair_vectors(batch, self.architecture.cutoff).to(self.dtype)
        distances = vectors.square().sum(dim=-1).sqrt()
        directions = vectors / distances.unsqueeze(-1)
        contact = distances / self._contact_distances(element, batch)
        envelope = smooth_envelope(distances / self.architecture.cutoff) * outside_core(contact)

        scalars = self.embedding(element)
        equivariants = scalars.new_zeros(scalars.shape[0], 3, scalars.shape[1])
        for message, update, filters in zip(
            self.messages, self.updates, self._filters(distances, envelope), strict=True
        ):
            scalars, equivariants = message(scalars, equivariants, filters, directions, batch)
            scalars, equivariants = update(scalars, equivariants)

        learned = self.readout(scalars).squeeze(-1).double()
        repulsion = 0.5 * self._pair_repulsion(element, distances, contact, batch).double().sum(dim=-1)
        atomic = torch.where(batch.is_atom, learned + repulsion, 0.0) + self.reference_energies[element]
        return batch.per_system(atomic).sum(dim=-1)

    def _filters(self, distances: Tensor, envelope: Tensor) -> tuple[Tensor, ...]:
        """Compute the filters W of every interaction, [n_rows, max_neighbors, 3 n_features] each; zero for empty slots.

        The envelope multiplies the whole filter, bias included: that alone makes messages vanish at the cutoff. On the
        inputs of the linear layer it does the same with a twentieth of the work.
        """
        envelope = envelope.unsqueeze(-1)
        radial = radial_basis(distances, self.architecture.n_rbf, self.architecture.cutoff)
        inputs = torch.cat([radial * envelope, envelope], dim=-1)
        layers = [cast(Message, message).filter_net for message in self.messages]
        weights = [torch.cat([layer.weight, layer.bias.unsqueeze(-1)], dim=-1) for layer in layers]
        # Tensor cores take eight numbers at a time.
        padding = (0, -inputs.shape[-1] % 8)
        product = functional.linear(functional.pad(inputs, padding), functional.pad(torch.cat(weights), padding))
        return product.chunk(len(layers), dim=-1)

    def _contact_distances(self, element: Tensor, batch: AtomicBatch) -> Tensor:
        """Sum of the covalent radii of each pair, [n_rows, max_neighbors] Å."""
        radius = self.covalent_radius.to(self.dtype)
        return radius[element].unsqueeze(-1) + radius[element[batch.neighbors]]

    def _pair_repulsion(self, element: Tensor, distances: Tensor, contact: Tensor, batch: AtomicBatch) -> Tensor:
        """Ziegler-Biersack-Littmark screened repulsion, [n_rows, max_neighbors] eV per directed pair.

        It is faded out at the sum of the covalent radii, so bonds at rest hardly feel it.
        Ziegler, Biersack & Littmark, "The Stopping and Range of Ions in Matter" (1985), eq. 2-60.
        """
        charge = self.nuclear_charge.to(distances.dtype)
        charge_i, charge_j = charge[element].unsqueeze(-1), charge[element[batch.neighbors]]
        screening_length = 0.88534 * BOHR_ANG / (charge_i**0.23 + charge_j**0.23).clamp(min=1.0)
        x = distances / screening_length
        screening = (
            0.18175 * torch.exp(-3.19980 * x)
            + 0.50986 * torch.exp(-0.94229 * x)
            + 0.28022 * torch.exp(-0.40290 * x)
            + 0.02817 * torch.exp(-0.20162 * x)
        )
        return COULOMB_EV_ANG * charge_i * charge_j / distances * screening * smooth_envelope(contact) * batch.mask


class Message(nn.Module):
    """Continuous-filter message from neighbours, eq. 7 and 8."""

    def __init__(self, n_features: int, n_rbf: int) -> None:
        super().__init__()
        self.scalar_net = nn.Sequential(
            nn.Linear(n_features, n_features), nn.SiLU(), nn.Linear(n_features, 3 * n_features)
        )
        self.filter_net = nn.Linear(n_rbf, 3 * n_features)

    def forward(
        self,
        scalars: Tensor,
        equivariants: Tensor,
        filters: Tensor,
        directions: Tensor,
        batch: AtomicBatch,
    ) -> tuple[Tensor, Tensor]:
        """Add the messages.

        Args:
            scalars: s, [n_rows, n_features].
            equivariants: v, [n_rows, 3, n_features].
            filters: W of this interaction, [n_rows, max_neighbors, 3 n_features].
            directions: r_ij / ‖r_ij‖, [n_rows, max_neighbors, 3].
            batch: for its neighbours.
        """
        to_scalars, to_equivariants = _Aggregate.apply(  # type: ignore[no-untyped-call]
            self.scalar_net(scalars), equivariants, filters, directions, batch.neighbors, batch.reverse
        )
        return scalars + to_scalars, equivariants + to_equivariants


class _Aggregate(torch.autograd.Function):
    """Sums of messages over neighbours, eq. 7 and 8, with an adjoint that only gathers from atoms.

    Autograd would gather products of the size of all pairs through ``reverse``. But a pair has the same filter seen
    from either end, and opposite directions; so the adjoint is again a sum of messages, from the neighbours'
    gradients. It is written in differentiable operations, because training needs a second derivative.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,  # φ, [n_rows, 3 n_features]
        equivariants: Tensor,  # v, [n_rows, 3, n_features]
        filters: Tensor,  # W, [n_rows, max_neighbors, 3 n_features]; equal in a slot and its reverse
        directions: Tensor,  # r̂, [n_rows, max_neighbors, 3]; opposite in a slot and its reverse
        neighbors: Tensor,
        reverse: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(features, equivariants, filters, directions, neighbors, reverse)
        # Products may come in FP16; what is made of them is summed in the precision of the equivariants.
        features, filters = features.to(equivariants.dtype), filters.to(equivariants.dtype)
        to_scalars, through_equivariants, along_directions = (features[neighbors] * filters).chunk(3, dim=-1)
        to_equivariants = through_equivariants.unsqueeze(2) * equivariants[neighbors]
        to_equivariants = to_equivariants + along_directions.unsqueeze(2) * directions.unsqueeze(-1)
        return to_scalars.sum(dim=1), to_equivariants.sum(dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        features, equivariants, filters, directions, neighbors, reverse = ctx.saved_tensors
        grad_s, grad_v = grads
        features_dtype, filters_dtype = features.dtype, filters.dtype
        features, filters = features.to(equivariants.dtype), filters.to(equivariants.dtype)
        filter_s, filter_v, filter_r = filters.chunk(3, dim=-1)
        units = directions.unsqueeze(-1)

        # The gradient of the sender: the neighbours' gradients times the pair's filter.
        neighbor_grad_s = gather_neighbors(grad_s, neighbors, reverse)
        neighbor_grad_v = gather_neighbors(grad_v, neighbors, reverse)
        sent_v = (filter_v.unsqueeze(2) * neighbor_grad_v).sum(dim=1)
        grad_features = (
            (filter_s * neighbor_grad_s).sum(dim=1),
            (equivariants * sent_v).sum(dim=1),
            -(filter_r * (neighbor_grad_v * units).sum(dim=2)).sum(dim=1),
        )
        feature_v = features.chunk(3, dim=-1)[1]
        grad_equivariants = feature_v.unsqueeze(1) * sent_v

        # The gradient of the pair: the receiver's gradient times the message of the neighbour.
        received_s, received_v, received_r = gather_neighbors(features, neighbors, reverse).chunk(3, dim=-1)
        own_grad_v = grad_v.unsqueeze(1)
        neighbor_v = gather_neighbors(equivariants, neighbors, reverse)
        grad_filters = (
            received_s * grad_s.unsqueeze(1),
            received_v * (own_grad_v * neighbor_v).sum(dim=2),
            received_r * (own_grad_v * units).sum(dim=2),
        )
        grad_directions = (own_grad_v * (received_r * filter_r).unsqueeze(2)).sum(dim=-1)
        return (
            # Each part cast by itself, so that a compiler never writes the wide ones.
            torch.cat([part.to(features_dtype) for part in grad_features], dim=-1),
            grad_equivariants,
            torch.cat([part.to(filters_dtype) for part in grad_filters], dim=-1),
            grad_directions,
            None,
            None,
        )


class Update(nn.Module):
    """Mixing of the channels of one atom, eq. 9 and 10."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.mix = nn.Linear(n_features, 2 * n_features, bias=False)
        self.scalar_net = nn.Sequential(
            nn.Linear(2 * n_features, n_features), nn.SiLU(), nn.Linear(n_features, 3 * n_features)
        )

    def forward(self, scalars: Tensor, equivariants: Tensor) -> tuple[Tensor, Tensor]:
        """Update s [n_rows, n_features] and v [n_rows, 3, n_features]."""
        u, v = self.mix(equivariants).chunk(2, dim=-1)
        # Squares underflow in FP16 and the bare norm has no gradient at zero: both end as NaN.
        wide_u, wide_v = u.to(scalars.dtype), v.to(scalars.dtype)
        norm = (wide_v.square().sum(dim=1) + NORM_SMOOTHING).sqrt()
        gate_ss, gate_sv, gate_vv = self.scalar_net(torch.cat([scalars, norm], dim=-1)).chunk(3, dim=-1)
        inner = (wide_u * wide_v).sum(dim=1)
        return scalars + gate_ss + gate_sv * inner, equivariants + gate_vv.unsqueeze(1) * wide_u


def pair_vectors(batch: AtomicBatch, cutoff: float) -> Tensor:
    """Return the vectors r_ij = r_j + S·cell − r_i from each row to its neighbours.

    An empty slot, and a pair at the cutoff or beyond, gets the vector (cutoff, 0, 0) without a gradient: a list with a
    skin holds such pairs. So the values of a model beyond its cutoff never matter, and no vector is zero.

    Args:
        batch: positions, cell and neighbours.
        cutoff: Å.

    Returns:
        [n_rows, max_neighbors, 3] Å, FP64.
    """
    neighbors = gather_neighbors(batch.positions, batch.neighbors, batch.reverse)
    vectors = neighbors - batch.positions.unsqueeze(1)
    if batch.shifts is not None:
        shifts = batch.per_system(batch.shifts).flatten(1, 2)
        vectors = vectors + torch.bmm(shifts, batch.cell).view_as(vectors)
    inside = batch.mask & (vectors.detach().square().sum(dim=-1) < cutoff**2)
    at_cutoff = cutoff * (torch.arange(3, device=vectors.device) == 0).to(vectors.dtype)
    return torch.where(inside.unsqueeze(-1), vectors, at_cutoff)


def smooth_envelope(x: Tensor) -> Tensor:
    """Return an envelope that is 1 at x = 0, and 0 from x = 1 on with two vanishing derivatives there.

    The polynomial of Gasteiger, Groß & Günnemann (arXiv:2003.03123, eq. 8) with p = 6, factored so that
    it is accurate near x = 1: 1 − 28x⁶ + 48x⁷ − 21x⁸ = (1 − x)³ (1 + 3x + 6x² + 10x³ + 15x⁴ + 21x⁵).
    """
    rest = 1 + x * (3 + x * (6 + x * (10 + x * (15 + x * 21))))
    gap = (1 - x).clamp(min=0)
    return gap * gap * gap * rest


def outside_core(contact: Tensor) -> Tensor:
    """Return 0 where atoms overlap and 1 from `CORE_OUTER` on, smooth between.

    Args:
        contact: distances divided by the sums of the covalent radii.
    """
    return 1 - smooth_envelope(((contact - CORE_INNER) / (CORE_OUTER - CORE_INNER)).clamp(min=0))


def radial_basis(distances: Tensor, n_rbf: int, cutoff: float) -> Tensor:
    """Return √(2/cutoff) sin(nπ d / cutoff) / d for n = 1 … n_rbf (eq. 13 of the paper), as [..., n_rbf].

    Args:
        distances: d, Å.
        n_rbf: number of functions.
        cutoff: Å.
    """
    n = torch.arange(1, n_rbf + 1, device=distances.device, dtype=distances.dtype)
    d = distances.unsqueeze(-1)
    return math.sqrt(2 / cutoff) * torch.sin(d * (n * (math.pi / cutoff))) / d
