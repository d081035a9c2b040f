"""Devices of this machine."""

from __future__ import annotations

import re

from mlff_exp.config.checks import choose
from mlff_exp.config.words import DEVICE


def check_device(device: str) -> None:
    """Refuse what is no name of a device.

    Raises:
        ConfigError: the message names it and the legal names.
    """
    if not re.fullmatch(DEVICE, device):
        choose("device", device, ("auto", "cpu", "cuda"), "cuda:<number>")


def is_cuda(device: str) -> bool:
    """Return whether a device is, or ``auto`` would be, a CUDA GPU; ``${is_cuda:${device}}`` in configurations.

    A device with a name is not checked, because the runs of a sweep may be on another machine.

    Args:
        device: cpu, cuda, cuda:<number> or auto.

    Raises:
        ConfigError: it is none of these.
    """
    check_device(str(device))
    if device != "auto":
        return device != "cpu"
    # Imported here, because the import takes seconds and only ``auto`` needs it.
    import torch

    return torch.cuda.is_available()


def n_gpus() -> int:
    """Return the number of CUDA GPUs of this machine."""
    import torch

    return torch.cuda.device_count()
