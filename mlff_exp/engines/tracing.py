"""Trace a function of tensors into one graph of plain operations for a compiler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._inductor.constant_folding import constant_fold
from torch._ops import OpOverload
from torch.func import functionalize
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

# On a GPU, products with up to this many rows are written as sums. cuBLAS chooses FP32 kernels that take ten times as
# long, and Inductor fuses a sum with the operations before and after it.
FEW_ROWS = 64


def trace(function: Callable[..., Any], inputs: Sequence[Tensor]) -> GraphModule:
    """Return the graph of ``function`` for tensors of these shapes, with its own derivatives.

    `make_fx` runs autograd once and records the operations. A compiler then sees forward and backward as one inference
    graph, and no tensors are saved between them. Values that depend on weights only, such as casts, are computed here.

    Args:
        function: a function of tensors.
        inputs: tensors of the shapes to trace.
    """
    module = _record(function, inputs, _FEW_ROWS_AS_SUMS if inputs[0].is_cuda else None)
    if any(_writes_in_place(node) for node in module.graph.nodes):
        # Networks of other packages do, and what folds constants would take a tensor for one that is written to later.
        with torch.no_grad():
            module = _record(functionalize(module, remove="mutations"), inputs)
        module.graph.eliminate_dead_code()
    constant_fold(module)
    module.recompile()
    return module


def _record(
    function: Callable[..., Any],
    inputs: Sequence[Tensor],
    decompositions: Mapping[OpOverload[..., Any], Callable[..., Any]] | None = None,
) -> GraphModule:
    """Return the graph of a function, in which each attribute is read once."""
    # With fake tensors, so that tracing does not count in the peak of memory.
    module = make_fx(
        function, decomposition_table=decompositions, tracing_mode="fake", _allow_non_fake_inputs=True
    )(*inputs)  # fmt: skip
    first: dict[str, Node] = {}
    for node in list(module.graph.nodes):
        if node.op != "get_attr":
            continue
        if node.target in first:  # folding one reading would take the attribute away from the other
            node.replace_all_uses_with(first[node.target])
            module.graph.erase_node(node)
        else:
            first[node.target] = node
    module.recompile()
    return module


def _writes_in_place(node: Node) -> bool:
    """Whether a node changes a tensor that it is given."""
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _mm(left: Tensor, right: Tensor) -> Any:
    """Compute [n, k] · [k, m] as a sum over k, in FP32 at least."""
    if left.shape[0] > FEW_ROWS:
        return NotImplemented
    wide = torch.promote_types(left.dtype, torch.float32)
    return (left.to(wide).unsqueeze(-1) * right.to(wide).unsqueeze(0)).sum(dim=1).to(left.dtype)


def _addmm(bias: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """Compute β b + α left · right as a sum over k."""
    if left.shape[0] > FEW_ROWS or (beta, alpha) != (1, 1):
        return NotImplemented
    wide = torch.promote_types(left.dtype, torch.float32)
    return ((left.to(wide).unsqueeze(-1) * right.to(wide).unsqueeze(0)).sum(dim=1) + bias).to(left.dtype)


_FEW_ROWS_AS_SUMS: dict[OpOverload[..., Any], Callable[..., Any]] = {
    torch.ops.aten.mm.default: _mm,
    torch.ops.aten.addmm.default: _addmm,
}
