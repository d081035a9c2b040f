"""Devices, and what suits them."""

from __future__ import annotations

from typing import Literal

from mlff_exp.config.words import Precision


def low_precision(device: str) -> Precision:
    """The 16-bit precision that suits a device; ``${low_precision:${device}}`` in configurations."""
    return "fp16_autocast" if is_cuda(device) else "bf16_autocast"


def fast_engine(device: str, systems: Literal["any", "molecules"] = "any") -> str:
    """The engine for long dynamics on a device; ``${fast_engine:${device}}`` in configurations.

    ``molecules`` promises what the fused engine takes: up to 64 atoms, not periodic, a model of this project.
    """
    if not is_cuda(device):
        return "compile"
    return "fused" if systems == "molecules" else "cuda_graph"


def is_cuda(device: str) -> bool:
    """Whether a device is, or ``auto`` would be, a CUDA GPU; ``${is_cuda:${device}}`` in configurations.

    A device that is named is taken at its word: where a sweep is composed need not be where its runs are.
    """
    if device != "auto":
        return device != "cpu"
    # Imported here: it takes seconds, and what is named is clear without asking.
    import torch

    return torch.cuda.is_available()


def n_gpus() -> int:
    """Return the number of CUDA GPUs of this machine."""
    import torch

    return torch.cuda.device_count()
