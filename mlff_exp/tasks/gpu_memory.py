"""Measure the GPU memory that an engine takes; every function returns 0 on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional


def allocated_bytes(device: torch.device) -> int:
    """Return the bytes in use on a GPU; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    # cuBLAS keeps a workspace from its first product on, and another for the thread that computes gradients. They
    # belong to no engine, so they are made before the first measurement.
    ones = torch.ones(16, 16, device=device, requires_grad=True)
    torch.autograd.grad(functional.linear(ones, ones, ones[0]).sum(), ones)
    del ones
    return torch.cuda.memory_allocated(device)


def peak_mib(call: Callable[[], object], device: torch.device, before: int) -> float:
    """Return the peak memory of a call that compiles nothing.

    Args:
        call: what is measured.
        device: the device that it runs on.
        before: bytes that do not belong to it, from `allocated_bytes`.

    Returns:
        MiB above ``before``.
    """
    if device.type != "cuda":
        return 0.0
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def graph_pools_mib(device: torch.device) -> float:
    """Return the MiB in the pools of captured graphs, which the allocator's peak does not count."""
    if device.type != "cuda":
        return 0.0
    segments = [segment for segment in torch.cuda.memory_snapshot() if tuple(segment["segment_pool_id"]) != (0, 0)]
    return float(sum(segment["total_size"] - segment["allocated_size"] for segment in segments)) / 2**20
