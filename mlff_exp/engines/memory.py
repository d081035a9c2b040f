"""Recognise errors that mean that there is no memory left."""

from __future__ import annotations

import torch

# Messages of torch on the CPU, of the driver below torch or Triton, and of cuBLAS, which raise other kinds of errors.
NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or its cause, means that there is no memory left on a GPU or for tensors on a CPU."""
    chain, seen = [error], set()
    while chain:
        current = chain.pop()
        if isinstance(current, torch.OutOfMemoryError | MemoryError) or any(text in str(current) for text in NO_MEMORY):
            return True
        seen.add(id(current))
        # Dynamo raises its own errors `from None`: the context is kept, though tracebacks leave it out.
        before = (current.__cause__, current.__context__)
        chain += [earlier for earlier in before if earlier is not None and id(earlier) not in seen]
    return False
