"""Trace a function of tensors into one graph of plain operations for a compiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._inductor.constant_folding import constant_fold
from torch._ops import OpOverload
from torch.fx import GraphModule
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
    on_gpu = inputs[0].is_cuda
    # With fake tensors, so that tracing does not count in the peak of memory.
    trace = make_fx(
        function,
        decomposition_table=_FEW_ROWS_AS_SUMS if on_gpu else None,
        tracing_mode="fake",
        _allow_non_fake_inputs=True,
    )
    module = trace(*inputs)
    constant_fold(module)
    module.recompile()
    return module


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
