"""Devices of this machine."""

from __future__ import annotations


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
