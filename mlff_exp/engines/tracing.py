"""A function of tensors as one graph of plain operations, ready for a compiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._inductor.constant_folding import constant_fold
from torch._ops import OpOverload
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

# Up to so many rows products are written as sums on a GPU: cuBLAS picks kernels for FP32 that take ten times as long,
# and what is a sum to Inductor is fused with what stands before and after it.
FEW_ROWS = 64


def trace(function: Callable[..., Any], inputs: Sequence[Tensor]) -> GraphModule:
    """What ``function`` does to tensors of these shapes, its own derivatives included.

    `make_fx` runs autograd once and records what it did, so that a compiler sees forward and backward as one inference
    graph and nothing is saved between them. What depends on weights alone, like their casts, is computed here and now.
    """
    on_gpu = inputs[0].is_cuda
    # With fake tensors, so that tracing leaves no trace in the peak of memory.
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
    """[n, k] · [k, m] as a sum over k, in FP32 at least."""
    if left.shape[0] > FEW_ROWS:
        return NotImplemented
    wide = torch.promote_types(left.dtype, torch.float32)
    return (left.to(wide).unsqueeze(-1) * right.to(wide).unsqueeze(0)).sum(dim=1).to(left.dtype)


def _addmm(bias: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """β b + α left · right."""
    if left.shape[0] > FEW_ROWS or (beta, alpha) != (1, 1):
        return NotImplemented
    wide = torch.promote_types(left.dtype, torch.float32)
    return ((left.to(wide).unsqueeze(-1) * right.to(wide).unsqueeze(0)).sum(dim=1) + bias).to(left.dtype)


_FEW_ROWS_AS_SUMS: dict[OpOverload[..., Any], Callable[..., Any]] = {
    torch.ops.aten.mm.default: _mm,
    torch.ops.aten.addmm.default: _addmm,
}
