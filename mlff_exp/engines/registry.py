"""The registry of engines, with the properties that the rest of the project needs to know.

An installed package adds an engine by an entry point of the group ``mlff_exp.engines`` that points at an `EngineSpec`.
Nothing in this module imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

from mlff_exp.common import Registry
from mlff_exp.config import PRECISIONS, choose, is_cuda, learn_aliases
from mlff_exp.engines.options import CompileOptions, CudaGraphOptions, EagerOptions, FusedOptions
from mlff_exp.structures import ALL_PAIRS_MAX_ATOMS


@dataclass(frozen=True)
class SystemFacts:
    """Properties of a system by which an engine accepts or refuses it.

    Attributes:
        n_atoms: number of atoms.
        periodic: whether it is periodic in any direction.
    """

    n_atoms: int
    periodic: bool


def nothing_ahead(options: Any) -> None:
    """Return None: the engine compiles nothing before its first run."""


def takes_all(facts: SystemFacts) -> None:
    """Return None: the engine accepts every system."""


@dataclass(frozen=True)
class EngineSpec:
    """One way to evaluate a force field.

    Attributes:
        name: the word for it in a configuration.
        options: dataclass of its options; its field ``name`` has the name as default, every field has a default.
        summary: one line of help.
        factory: ``package.module:function``, called with a frozen copy of the model on the device, a precision, the
            device and the options; returns an `Engine`.
        needs_cuda: whether it runs on CUDA GPUs only.
        precisions: those that it has.
        compiles: whether its first call of a shape compiles, so that batches are padded to few shapes.
        ahead: gives the options whose compiling fills the cache that this engine reads, or None where nothing is
            compiled ahead.
        takes: gives the reason why a system is not taken, or None.
        stress: whether it can compute the stress of systems that are periodic in all three directions; its factory then
            takes the keyword ``stress``, and computes it if that is true.
        rank: the larger, the faster in long dynamics; `fast_engine` chooses none of rank 0.
        aliases: other words for it, which an error message understands.
    """

    name: str
    options: type
    summary: str
    factory: str
    needs_cuda: bool = False
    precisions: tuple[str, ...] = PRECISIONS
    compiles: bool = False
    ahead: Callable[[Any], Any] = nothing_ahead
    takes: Callable[[SystemFacts], str | None] = takes_all
    stress: bool = False
    rank: int = 0
    aliases: tuple[str, ...] = ()


ENGINES: Registry[EngineSpec] = Registry("engine", "mlff_exp.engines")
# Speedups and errors are relative to this engine: FP32 is the baseline of a timing, FP64 the reference of accuracy.
REFERENCE_ENGINE = "eager"
# The engine of the calculator's ``use_compile``.
COMPILED_ENGINE = "compile"


def engine_spec(name: str, key: str = "engine") -> EngineSpec:
    """Return the spec of an engine.

    Args:
        name: as in a configuration.
        key: the key that has this value, for the message.

    Raises:
        ConfigError: there is no such engine. The message names the key, the value, the legal names and the nearest of
            them.
        UnknownNameError: an entry point of this name can't be loaded.
    """
    if name not in ENGINES and not ENGINES.is_broken(name):
        learn_aliases(ENGINES)
        choose(key, name, ENGINES.names())
    return ENGINES[name]


def engine_options(name: str, **words: Any) -> Any:
    """Make the options of an engine; words that it does not have are ignored.

    Raises:
        ConfigError: an unknown name, or a value that the options refuse.
    """
    options = engine_spec(name).options
    known = {item.name for item in fields(options)}
    return options(**{word: value for word, value in words.items() if word in known})


# The systems that an engine must take to be chosen by `fast_engine`.
PROMISED = {
    "any": SystemFacts(ALL_PAIRS_MAX_ATOMS + 1, periodic=True),
    "molecules": SystemFacts(ALL_PAIRS_MAX_ATOMS, periodic=False),
}


def fast_engine(device: str, systems: Literal["any", "molecules"] = "any") -> str:
    """Return the engine for long dynamics on a device; ``${fast_engine:${device}}`` in configurations.

    Args:
        device: as in a configuration.
        systems: "molecules" promises systems of up to 64 atoms that are not periodic, and a model of this project.

    Raises:
        ConfigError: one of the words does not exist.
    """
    choose("fast_engine:<device>,systems", systems, tuple(PROMISED))
    cuda, promised = is_cuda(device), PROMISED[systems]
    usable = [spec for spec in ENGINES if spec.rank and (cuda or not spec.needs_cuda) and spec.takes(promised) is None]
    return max(usable, key=lambda spec: spec.rank).name


def _compiled_ahead(options: CompileOptions) -> CompileOptions | None:
    """Return the options, but None for max-autotune, which chooses kernels by timing: processes disturb each other."""
    return None if options.mode == "max-autotune" else options


def _captured_ahead(_: CudaGraphOptions) -> CompileOptions:
    return CompileOptions(mode="default")


def _fused_ahead(options: FusedOptions) -> FusedOptions:
    return options


def _small_molecules(facts: SystemFacts) -> str | None:
    if facts.periodic:
        return "it takes no periodic systems: use engine=cuda_graph"
    if facts.n_atoms > ALL_PAIRS_MAX_ATOMS:
        return (
            f"it takes molecules of up to {ALL_PAIRS_MAX_ATOMS} atoms, and this one has {facts.n_atoms}: "
            "use engine=cuda_graph"
        )
    return None


ENGINES.register(
    EngineSpec(
        REFERENCE_ENGINE,
        EagerOptions,
        "plain PyTorch",
        "mlff_exp.engines.factory:make_eager",
        stress=True,
        aliases=("pytorch", "torch"),
    )
)
ENGINES.register(
    EngineSpec(
        COMPILED_ENGINE,
        CompileOptions,
        "energy and forces as one graph through torch.compile",
        "mlff_exp.engines.factory:make_compiled",
        stress=True,
        compiles=True,
        ahead=_compiled_ahead,
        rank=1,
        aliases=("inductor",),
    )
)
ENGINES.register(
    EngineSpec(
        "cuda_graph",
        CudaGraphOptions,
        "the compiled graph captured in one CUDA graph",
        "mlff_exp.engines.factory:make_cuda_graph",
        stress=True,
        needs_cuda=True,
        compiles=True,
        ahead=_captured_ahead,
        rank=2,
        aliases=("cudagraph", "cudagraphs", "graph"),
    )
)
ENGINES.register(
    EngineSpec(
        "fused",
        FusedOptions,
        "energy and forces in Triton kernels written by hand",
        "mlff_exp.engines.factory:make_fused",
        needs_cuda=True,
        precisions=("fp32", "tf32", "fp16_autocast"),
        compiles=True,
        ahead=_fused_ahead,
        takes=_small_molecules,
        rank=3,
        aliases=("triton",),
    )
)
