"""Settings of a process that packages like to change."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch


def settings_of_the_process() -> dict[str, Any]:
    cudnn = torch.backends.cudnn
    return {
        "default type": torch.get_default_dtype(),
        "products": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "gradients": torch.is_grad_enabled(),
        "cudnn": (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32),
        "threads": torch.get_num_threads(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "python": random.getstate(),
        "environment": dict(os.environ),
    }
