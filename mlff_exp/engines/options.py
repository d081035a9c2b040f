"""Options of the engines that ship with the package."""

from __future__ import annotations

from dataclasses import dataclass

from mlff_exp.config import COMPILE_MODES, choose


@dataclass
class EagerOptions:
    """Plain PyTorch."""

    name: str = "eager"


@dataclass
class CompileOptions:
    """Energy and forces as one graph through `torch.compile`.

    Attributes:
        mode: of `torch.compile`.
    """

    name: str = "compile"
    mode: str = "reduce-overhead"

    def __post_init__(self) -> None:
        choose("engine.mode", self.mode, COMPILE_MODES)


@dataclass
class CudaGraphOptions:
    """The compiled graph captured in one CUDA graph with static buffers."""

    name: str = "cuda_graph"


@dataclass
class FusedOptions:
    """Energy and forces in Triton kernels written by hand, captured in one CUDA graph."""

    name: str = "fused"
