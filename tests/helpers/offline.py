"""Compile the kernels that a call of the fused engine would launch, for a GPU that need not be there.

Triton's interpreter runs more of Python than its compiler takes. In a process of its own (`-m tests.helpers.offline`),
because a process either interprets kernels or compiles them.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import triton
from ase.build import molecule
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from mlff_exp.engines.fused.engine import FusedEngine
from mlff_exp.engines.prediction import Prediction
from mlff_exp.models.embedded import Architecture
from mlff_exp.models.painn import PaiNN
from mlff_exp.structures.batch import collate
from tests.helpers.fused_shapes import MOLECULES, SHARED, WIDE

HOPPER = GPUTarget("cuda", 90, 32)
POINTERS = {
    torch.float16: "*fp16", torch.float32: "*fp32", torch.float64: "*fp64", torch.int32: "*i32", torch.int64: "*i64",
}  # fmt: skip


def compile_only(kernel: JITFunction[Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    options: dict[str, Any] = {name: keywords.pop(name) for name in ("num_warps", "maxnreg") if name in keywords}
    # Not from the table of options: the GPU that it is compiled for starts kernels early.
    if "EARLY" in keywords:
        keywords["EARLY"] = options["launch_pdl"] = True
    values = dict(zip(kernel.arg_names, arguments, strict=False)) | keywords
    signature, constants = {}, {}
    for index, parameter in enumerate(kernel.params):
        value = values[parameter.name]
        if parameter.is_constexpr:
            signature[parameter.name], constants[(index,)] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = POINTERS[value.dtype]
        else:
            signature[parameter.name] = "i32" if isinstance(value, int) else "fp32"
    triton.compile(ASTSource(kernel, signature, constants), target=HOPPER, options=options)
    print(kernel.__name__, *(keywords[name] for name in ("STAGE", "LAYER") if name in keywords))


def main() -> None:
    """Compile for every case among the arguments, such as ``wide:fp32``, and print a line for each kernel."""
    for case in sys.argv[1:]:
        compile_case(case)


def compile_case(case: str) -> None:
    name, precision = case.split(":")

    def launch(kernel: JITFunction[Any], grid: tuple[int, ...]) -> Any:
        def compile_this(*arguments: Any, **keywords: Any) -> None:
            print(case, end=" ")
            compile_only(kernel, arguments, keywords)

        return compile_this

    JITFunction.__getitem__ = launch
    # One kernel with two layers takes the compiler six times as long, and tests nothing more.
    n_interactions = 1 if name == "molecules" else 2
    model = PaiNN(Architecture(32, n_interactions, 8, 5.0), {"H": -13.6, "O": -2040.0})
    shape = {"wide": WIDE, "shared": SHARED, "molecules": MOLECULES}[name]
    engine = FusedEngine(model, precision, torch.device("cpu"), shape)  # type: ignore[arg-type]
    batch = collate([molecule("H2O")] * 2, 5.0)
    if name == "molecules":  # steps, which hold all that one evaluation does
        last = Prediction(torch.zeros(2, dtype=torch.float64), torch.zeros_like(batch.positions))
        moving = torch.zeros_like(batch.positions), last, torch.ones_like(batch.positions[:, :1])
        engine.integrate(batch, *moving, torch.ones(1, dtype=torch.float64), n_steps=10)
    else:
        engine(batch)


if __name__ == "__main__":
    main()
