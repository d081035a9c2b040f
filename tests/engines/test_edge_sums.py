"""Sums over edges without additions at an index: the same numbers, whatever the network adds and where."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from mlff_exp.engines.eager import energy_and_forces
from mlff_exp.engines.edge_sums import replace_scatters
from mlff_exp.engines.tracing import trace
from mlff_exp.models.graph import Edges, GraphModel
from mlff_exp.structures.batch import AtomicBatch, collate
from tests.helpers.networks import TwoRanges, envelope, random_structure
from tests.outside.package.outside_force_field.network import Pairs

aten = torch.ops.aten
ADDITIONS = {
    aten.index_put.default, aten.index_add.default, aten.scatter_add.default, aten.scatter_reduce.two,
}  # fmt: skip


class Charged(nn.Module):
    """Charges along edges, of which each system has none in all: sums by receiver, by sender and by system."""

    def __init__(self, add: Callable[[Tensor, Tensor, Tensor], Tensor], *longer: float) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.cutoffs, self.elements, self.add = (3.0, *longer), {1: -13.6, 6: -1030.0, 8: -2040.0}, add
        self.charge = nn.Embedding(9, 3)

    def forward(self, numbers: Tensor, system: Tensor, n_systems: int, edges: Edges) -> Tensor:
        (index, vectors), *_ = edges
        receivers, senders = index
        near = envelope(vectors, 3.0)
        charges = self.charge(numbers)
        charges = self.add(charges, receivers, near * charges[senders])
        charges = self.add(charges, senders, near * charges[receivers].tanh())
        mean = self.add(charges.new_zeros(n_systems, 3), system, charges)
        return (charges - 0.01 * mean[system]).square().sum(-1)


def index_add(to: Tensor, index: Tensor, values: Tensor) -> Tensor:
    return to.index_add(0, index, values)


def scatter_add(to: Tensor, index: Tensor, values: Tensor) -> Tensor:
    return to.scatter_add(0, index.unsqueeze(-1).expand_as(values), values)


def scatter_reduce(to: Tensor, index: Tensor, values: Tensor) -> Tensor:
    return to.scatter_reduce(0, index.unsqueeze(-1).expand_as(values), values, "sum")


def index_put(to: Tensor, index: Tensor, values: Tensor) -> Tensor:
    return to.index_put((index - len(to),), values, accumulate=True)  # counted from the end


def traced(network: nn.Module, batch: AtomicBatch) -> GraphModule:
    model = GraphModel(network).cast(torch.float64)
    return trace(lambda *tensors: energy_and_forces(model, batch.with_tensors(*tensors), "fp64"), batch.tensors())


def two_systems(cutoffs: tuple[float, ...], periodic: bool) -> AtomicBatch:
    systems = [random_structure(seed, periodic=periodic) for seed in (3, 5)]
    return collate(systems, max(cutoffs), near=sorted(cutoffs)[:-1], skin=0.5, bucketed=True)


def additions(graph: GraphModule) -> int:
    return sum(node.target in ADDITIONS for node in graph.graph.nodes)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize(
    "network",
    [
        lambda: Pairs(4.0, 8), TwoRanges, lambda: Charged(index_add), lambda: Charged(scatter_add),
        lambda: Charged(scatter_reduce), lambda: Charged(index_put), lambda: Charged(index_put, 5.0),
    ],
    ids=["pairs", "two ranges", "index_add", "scatter_add", "scatter_reduce", "index_put", "shorter list"],
)  # fmt: skip
def test_dense_sums_give_the_same_energies_and_forces(network: Callable[[], nn.Module], periodic: bool) -> None:
    made = network()
    batch = two_systems(made.cutoffs, periodic)  # type: ignore[arg-type]
    graph = traced(made, batch)
    assert additions(graph) > 0
    expected = graph(*batch.tensors())
    replace_scatters(graph, batch)
    found = graph(*batch.tensors())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "network", [lambda: Pairs(4.0, 8), TwoRanges, lambda: Charged(index_add), lambda: Charged(index_add, 5.0)]
)
def test_nothing_is_added_at_an_index_afterwards(network: Callable[[], nn.Module]) -> None:
    made = network()
    batch = two_systems(made.cutoffs, True)  # type: ignore[arg-type]
    graph = traced(made, batch)
    assert replace_scatters(graph, batch) == 0
    assert additions(graph) == 0


class Elsewhere(nn.Module):
    """Adds what belongs to a receiver to the atom after it, with ``width`` values for each edge."""

    cutoffs, elements = (3.0,), None

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, numbers: Tensor, system: Tensor, n_systems: int, edges: Edges) -> Tensor:
        ((index, vectors),) = edges
        values = envelope(vectors, 3.0).expand(-1, self.width)
        next_atoms = (index[0] + 1) % len(numbers)
        return vectors.new_zeros(len(numbers), self.width).index_add(0, next_atoms, values).square().mean(-1)


@pytest.mark.parametrize(("width", "left"), [(1, 0), (100_000, 1)])
def test_an_index_that_is_no_end_of_an_edge_is_not_taken_for_one(width: int, left: int) -> None:
    batch = two_systems((3.0,), False)
    graph = traced(Elsewhere(width), batch)
    expected = graph(*batch.tensors())
    assert replace_scatters(graph, batch) == left
    assert additions(graph) == left
    for one, other in zip(graph(*batch.tensors()), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
