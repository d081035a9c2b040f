"""Options of engines and precisions."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from mlff_exp.config.checks import choose
from mlff_exp.config.words import COMPILE_MODES, PRECISIONS


@dataclass
class EagerEngine:
    """Plain PyTorch."""

    name: str = "eager"


@dataclass
class CompileEngine:
    """Energy and forces as one graph through `torch.compile`.

    Attributes:
        mode: of `torch.compile`.
    """

    name: str = "compile"
    mode: str = "reduce-overhead"

    def __post_init__(self) -> None:
        choose("engine.mode", self.mode, COMPILE_MODES)


@dataclass
class CudaGraphEngine:
    """The compiled graph captured in one CUDA graph with static buffers."""

    name: str = "cuda_graph"


@dataclass
class FusedEngine:
    """Energy and forces in Triton kernels written by hand, captured in one CUDA graph."""

    name: str = "fused"


ENGINE_TYPES: dict[str, type] = {one.name: one for one in (EagerEngine, CompileEngine, CudaGraphEngine, FusedEngine)}


@dataclass
class PrecisionConfig:
    """Arithmetic of the network; geometry, sums and the integrator stay FP32 or FP64."""

    name: str = MISSING

    def __post_init__(self) -> None:
        choose("precision.name", self.name, PRECISIONS)
