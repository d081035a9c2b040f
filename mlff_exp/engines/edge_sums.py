"""Write sums over edges in a traced graph as dense sums, without atomic additions.

A network that is a function of edges adds messages to their receivers, and its gradient adds to their senders. Both are
additions at an index, which a GPU makes one by one in an order that differs from call to call. So do the last bits of
the result, and in half precision the additions are slow. The edges of an `AtomicBatch` form a matrix
[n_rows, max_neighbors]: a sum by receiver is a sum over its columns. ``reverse`` says where each pair stands in its
neighbour's row: a sum by sender is a gather and then the same sum. The edges within a shorter cutoff are the smaller
matrix that `first_columns` makes, with a ``reverse`` of its own. An addition of few terms to few places, such as that
of atoms to systems, is written as one sum over all terms for each place, with zero for the terms of other places.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum, auto
from operator import attrgetter
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Interpreter, Node

from mlff_exp.engines.tracing import trace
from mlff_exp.structures import AtomicBatch, first_columns

aten = torch.ops.aten
_SCATTERS = (aten.scatter_add.default, aten.scatter_reduce.two, aten.index_add.default)
# An index into edges is made of the neighbours by a few views. A longer history is not looked at.
LONGEST_HISTORY = 32
# Terms times places up to which a sum is written out for each place.
MOST_TERMS = 2**20


class _End(Enum):
    """The atom of an edge to which an index points."""

    RECEIVER = auto()
    SENDER = auto()


@dataclass(frozen=True)
class _Target:
    """Where an index points: to one end of the edges of the matrix, or of its first columns."""

    end: _End
    n_columns: int


def replace_scatters(module: GraphModule, batch: AtomicBatch) -> int:
    """Replace additions at an index by dense sums, in place.

    Args:
        module: a graph whose inputs are the tensors of a batch.
        batch: a batch of the shapes that were traced.

    Returns:
        The number of operations that still add at an index, for which no dense form was found.
    """
    inputs = dict(zip((field.name for field in fields(AtomicBatch)), _inputs(module), strict=False))
    for node in module.graph.nodes:
        if node.op == "get_attr" and "val" not in node.meta:  # a constant that was computed after tracing
            node.meta["val"] = attrgetter(str(node.target))(module)
    known: dict[Node, _Target | None] = {}
    reversed_slots = {batch.neighbors.shape[1]: inputs["reverse"]}
    left = 0
    for node in list(module.graph.nodes):
        addition = _addition(node)
        if addition is None:
            continue
        target = None
        if addition.axis == 0:
            if addition.index not in known:
                known[addition.index] = _target(module, addition.index, inputs, batch)
            target = known[addition.index]
        with module.graph.inserting_before(node):
            if target is not None:
                if target.end is _End.SENDER and target.n_columns not in reversed_slots:
                    reversed_slots[target.n_columns] = _insert_reverse(module.graph, inputs, batch, target.n_columns)
                reverse = reversed_slots[target.n_columns] if target.end is _End.SENDER else None
                _sum_columns(module.graph, addition, reverse)
            elif addition.has_few_terms:
                _sum_for_each_place(module.graph, addition)
            else:
                left += 1
    module.graph.eliminate_dead_code()
    module.recompile()
    return left


def _inputs(module: GraphModule) -> list[Node]:
    return [node for node in module.graph.nodes if node.op == "placeholder"]


@dataclass(frozen=True)
class _Addition:
    """An operation that adds values at an index along an axis.

    Attributes:
        node: the operation. Its first argument is what is added to.
        axis: the axis, from 0.
        index: along the axis; for scatters it has the shape of the values.
        values: what is added.
    """

    node: Node
    axis: int
    index: Node
    values: Node

    @property
    def has_few_terms(self) -> bool:
        """Whether the index has one axis, and terms times places are at most `MOST_TERMS`."""
        index, values, result = (_tensor(node) for node in (self.index, self.values, self.node))
        terms = values.numel() * result.shape[self.axis]
        return index.ndim == 1 and values.ndim == result.ndim and not values.is_complex() and terms <= MOST_TERMS


def _addition(node: Node) -> _Addition | None:
    """Return what an operation adds, and where; None if it adds nothing at an index."""
    if node.target is aten.index_put.default:
        indices, values = cast("list[Any]", node.args[1]), node.args[2]
        accumulates = len(node.args) > 3 and node.args[3] is True
        if not accumulates or len(indices) != 1:
            return None
        axis, index = 0, indices[0]
    elif node.target in _SCATTERS:
        axis, index, values = cast(int, node.args[1]), node.args[2], node.args[3]
        if node.kwargs or (node.target is aten.scatter_reduce.two and node.args[4] != "sum"):
            return None
    else:
        return None
    result = _tensor(node)
    addition = _Addition(node, axis % max(result.ndim, 1), cast(Node, index), cast(Node, values))
    # A mask, an index with fewer rows than the values, or values that are broadcast would be another operation.
    if _tensor(addition.index).dtype is torch.bool:
        return None
    if _tensor(addition.index).shape[:1] != _tensor(addition.values).shape[addition.axis : addition.axis + 1]:
        return None
    return addition


def _tensor(node: Node) -> Tensor:
    """Return a tensor with the shape and the type of a node's result."""
    return cast(Tensor, node.meta["val"])


def _target(module: GraphModule, index: Node, inputs: dict[str, Node], batch: AtomicBatch) -> _Target | None:
    """Find out which atom of an edge an index points to, by computing it for pairs that are chosen at random."""
    history, given = _history(index), {inputs["neighbors"], inputs["reverse"]}
    if history is None or any(node.op == "placeholder" and node not in given for node in history):
        return None
    n_rows, width = batch.neighbors.shape
    device, generator = batch.neighbors.device, torch.Generator().manual_seed(0)
    neighbors = torch.randint(n_rows, (n_rows, width), generator=generator).to(device)
    reverse = torch.randint(n_rows * width, (n_rows, width), generator=generator).to(device)
    values = {inputs["neighbors"]: neighbors, inputs["reverse"]: reverse}
    rows = _first_column(cast(Tensor, _Part(module, history, values).value_of(index)))
    if rows is None:
        return None
    for n_columns in {width, *(columns for _, columns in batch.near_columns if columns < width)}:
        if rows.shape != (n_rows * n_columns,):
            continue
        if torch.equal(rows, torch.arange(n_rows, device=device).repeat_interleave(n_columns)):
            return _Target(_End.RECEIVER, n_columns)
        senders = neighbors
        if n_columns < width:
            senders, *_ = first_columns(neighbors, reverse, batch.mask, n_columns)
        if torch.equal(rows, senders.flatten()):
            return _Target(_End.SENDER, n_columns)
    return None


def _insert_reverse(graph: Graph, inputs: dict[str, Node], batch: AtomicBatch, n_columns: int) -> Node:
    """Insert what computes the ``reverse`` of the first columns, and return the node of the result."""
    names = ("neighbors", "reverse", "mask")

    def reverse_of(neighbors: Tensor, reverse: Tensor, mask: Tensor) -> Tensor:
        return first_columns(neighbors, reverse, mask, n_columns)[1]

    part = trace(reverse_of, [getattr(batch, name) for name in names])
    placed = dict(zip(_inputs(part), (inputs[name] for name in names), strict=True))
    return cast(Node, graph.graph_copy(part.graph, placed))


def _history(node: Node) -> set[Node] | None:
    """Return a node and all nodes that it is made of; None if they are many."""
    found, todo = {node}, [node]
    while todo:
        for earlier in todo.pop().all_input_nodes:
            if earlier not in found:
                found.add(earlier)
                todo.append(earlier)
        if len(found) > LONGEST_HISTORY:
            return None
    return found


class _Part(Interpreter):
    """Computes some nodes of a graph."""

    def __init__(self, module: GraphModule, nodes: set[Node], values: dict[Node, Tensor]) -> None:
        super().__init__(module, garbage_collect_values=False)
        self._nodes = nodes
        self.env.update(values)

    def value_of(self, wanted: Node) -> object:
        """Compute a node from those before it."""
        for node in self.graph.nodes:
            if node in self._nodes and node not in self.env:
                self.env[node] = self.run_node(node)
        return self.env[wanted]


def _first_column(index: Tensor) -> Tensor | None:
    """Return an index of rows that is repeated along all other axes, [n_edges]; None for one that is not."""
    repeated = all(size == 1 or stride == 0 for size, stride in zip(index.shape[1:], index.stride()[1:], strict=True))
    if not repeated or not index.ndim:
        return None
    for _ in index.shape[1:]:
        index = index.select(1, 0)
    return index


def _sum_columns(graph: Graph, addition: _Addition, reverse: Node | None) -> None:
    """Put a sum over the columns of the matrix of neighbours in the place of an addition.

    Args:
        graph: where it stands.
        addition: of one row for each edge.
        reverse: the input that says where each pair stands reversed, for a sum by sender.
    """
    values, rest = addition.values, _tensor(addition.values).shape[1:]
    if reverse is not None:
        flat = graph.call_function(aten.reshape.default, (reverse, [-1]))
        values = graph.call_function(aten.index.Tensor, (values, [flat]))
    n_rows = _tensor(addition.node).shape[0]
    matrix = graph.call_function(aten.reshape.default, (values, [n_rows, -1, *rest]))
    _replace(graph, addition.node, graph.call_function(aten.sum.dim_IntList, (matrix, [1])))


def _sum_for_each_place(graph: Graph, addition: _Addition) -> None:
    """Put sums over all terms, one for each place, in the place of an addition."""
    result, axis = _tensor(addition.node), addition.axis
    places = graph.call_function(
        aten.arange.default, (result.shape[axis],), {"dtype": torch.int64, "device": result.device}
    )
    index = graph.call_function(aten.remainder.Scalar, (addition.index, result.shape[axis]))  # -1 is the last place
    apart = graph.call_function(aten.unsqueeze.default, (index, 0))
    here = graph.call_function(aten.eq.Tensor, (graph.call_function(aten.unsqueeze.default, (places, 1)), apart))
    shape = [1] * axis + [result.shape[axis], -1] + [1] * (result.ndim - axis - 1)
    here = graph.call_function(aten.reshape.default, (here, shape))
    values = graph.call_function(aten.unsqueeze.default, (addition.values, axis))
    terms = graph.call_function(aten.where.ScalarOther, (here, values, 0))
    _replace(graph, addition.node, graph.call_function(aten.sum.dim_IntList, (terms, [axis + 1])))


def _replace(graph: Graph, node: Node, total: Node) -> None:
    """Replace an addition by the addition of a tensor of sums."""
    result = graph.call_function(aten.add.Tensor, (node.args[0], total))
    result.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(result)
    graph.erase_node(node)
