"""What a foreign package may change for a process, and how it is put back."""

from __future__ import annotations

import io
import os
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def settings_kept() -> Iterator[None]:
    """Put settings of the process back after the block, however it ends.

    These are: PyTorch's default type, precision of products, deterministic algorithms, switches of cuDNN and whether
    gradients are recorded; the states of the random generators of Python, NumPy and PyTorch; environment variables.
    """
    dtype, matmul, gradients = torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.is_grad_enabled()
    deterministic = _deterministic()
    cudnn = {name: getattr(torch.backends.cudnn, name) for name in ("deterministic", "benchmark", "allow_tf32")}
    generators = random.getstate(), np.random.get_state()  # noqa: NPY002 (foreign packages use the global generator)
    environment = dict(os.environ)
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=list(cuda)):
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_float32_matmul_precision(matmul)
            torch.set_grad_enabled(gradients)
            # Only if it was changed, because this function imports the compiler, which takes seconds.
            if _deterministic() != deterministic:
                torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
            for name, value in cudnn.items():
                setattr(torch.backends.cudnn, name, value)
            random.setstate(generators[0])
            np.random.set_state(generators[1])  # noqa: NPY002
            for name in set(os.environ) - set(environment):
                del os.environ[name]
            os.environ.update(environment)


def _deterministic() -> tuple[bool, bool]:
    """Return whether deterministic algorithms are asked for, and whether PyTorch only warns of others."""
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make tensors of this type by default inside the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings and lines on the standard output of a foreign package, which our users can do nothing about."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


class TensordotOfTwoTypes(TorchFunctionMode):
    """Compute `torch.tensordot` in the wider type of its two tensors, as autocast on CUDA does."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of PyTorch."""
        if func is torch.tensordot and args[0].dtype != args[1].dtype:
            wider = torch.promote_types(args[0].dtype, args[1].dtype)
            args = (args[0].to(wider), args[1].to(wider), *args[2:])
        return func(*args, **(kwargs or {}))
