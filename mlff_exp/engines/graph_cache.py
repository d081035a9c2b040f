"""Keep compiled graphs on disk, so that a second start neither traces nor compiles.

A graph is found by the weights, the code, the versions, the device, the precision and the shape that it was compiled
for. Before it is used, the model itself is evaluated once, at the positions of the first time: if it no longer gives
the numbers of that time, for a reason that the name does not hold, the graph is not used.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.fx import GraphModule

from mlff_exp.engines.eager import energy_and_forces
from mlff_exp.engines.inductor import cache_directory, compile_graph, load_compiled, save_compiled
from mlff_exp.engines.protocol import ForceField
from mlff_exp.structures import AtomicBatch

PACKAGE = Path(__file__).resolve().parent.parent
FOLDERS = ("engines", "models", "structures")  # whose code the graphs depend on
FOLDER, GRAPH_FILE, TENSOR_FILE = "mlff_exp", "graph.bin", "tensors.safetensors"
UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, EOFError, AttributeError, pickle.UnpicklingError)
SAME_ENERGY, SAME_FORCES = 1e-5, 1e-3  # relative; the same operations in FP32 differ by the order of their sums

Outputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class KeptGraph:
    """A compiled graph with the tensors that it needs beside its inputs."""

    compiled: Callable[..., Sequence[Tensor]]
    constants: tuple[Tensor, ...]

    def __call__(self, *inputs: Tensor) -> Outputs:
        """Evaluate the graph."""
        return tuple(self.compiled(*inputs, *self.constants))


class GraphCache:
    """The graphs of one model at one precision.

    Args:
        model: whose weights no longer change.
        words: everything else that the graphs depend on, the precision for example.
    """

    def __init__(self, model: ForceField, words: Sequence[str]) -> None:
        self._model, self._tensors = model, _named_tensors(model)
        self._digest = _digest(model, self._tensors, words)

    def compile(self, batch: AtomicBatch, module: GraphModule) -> KeptGraph:
        """Compile a graph and keep it.

        Args:
            batch: a batch of its shape.
            module: the traced graph.
        """
        module, constants = _lift_constants(module)
        compiled = compile_graph(module, [*batch.tensors(), *constants])
        directory = self._directory(batch)
        if directory is not None:
            self._save(directory, batch, compiled, constants)
        return KeptGraph(compiled, constants)

    def find(self, batch: AtomicBatch) -> KeptGraph | None:
        """Return the graph for the shape of a batch; None if none is kept, it can't be read, or the model changed."""
        directory, device = self._directory(batch), batch.positions.device
        if directory is None or not _is_ours(directory):
            return None
        try:
            kept = safetensors.torch.load_file(directory / TENSOR_FILE, device=str(device))
            compiled = load_compiled(directory / GRAPH_FILE)
        except (*UNREADABLE, SafetensorError):
            return None
        inputs = _numbered(kept, "input")
        if not _same(self._evaluate(batch, inputs), _numbered(kept, "output")):
            return None
        names = {int(name.split(".")[1]): name for name in kept if name.startswith("constant.")}
        ordered = [names[place] for place in range(len(names))]
        constants = tuple(self._tensors.get(name.split(".", 2)[2], kept[name]) for name in ordered)
        return KeptGraph(compiled, constants)

    def _evaluate(self, batch: AtomicBatch, inputs: Sequence[Tensor]) -> Outputs:
        """Evaluate the model itself, kernel by kernel."""
        return energy_and_forces(self._model, batch.with_tensors(*inputs), "fp32")

    def _directory(self, batch: AtomicBatch) -> Path | None:
        root = cache_directory()
        name = hashlib.sha256(f"{self._digest} {batch.shape_key}".encode()).hexdigest()
        return None if root is None else root / FOLDER / name

    def _save(self, directory: Path, batch: AtomicBatch, compiled: Any, constants: Sequence[Tensor]) -> None:
        """Write a graph. A full disk is no reason to fail: the next start compiles again."""
        own = {tensor.data_ptr(): name for name, tensor in self._tensors.items() if tensor.numel()}
        inputs = batch.tensors()
        tensors = {f"input.{place}": tensor for place, tensor in enumerate(inputs)}
        tensors |= {f"output.{place}": tensor for place, tensor in enumerate(self._evaluate(batch, inputs))}
        for place, tensor in enumerate(constants):
            name = own.get(tensor.data_ptr(), "")
            if name and _layout(self._tensors[name]) == _layout(tensor):  # the model has it, in this very layout
                tensors[f"constant.{place}.{name}"] = tensor.new_empty(0)
            else:
                tensors[f"constant.{place}."] = tensor
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(dir=directory.parent))
            try:
                safetensors.torch.save_file(
                    {
                        name: tensor.detach().clone(memory_format=torch.contiguous_format)
                        for name, tensor in tensors.items()
                    },
                    draft / TENSOR_FILE,
                )
                save_compiled(compiled, draft / GRAPH_FILE)
                shutil.rmtree(directory, ignore_errors=True)
                draft.rename(directory)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        except OSError:
            return


def _lift_constants(module: GraphModule) -> tuple[GraphModule, tuple[Tensor, ...]]:
    """Make inputs of the tensors that a graph reads from its module, and return the graph and these tensors."""
    graph, constants = module.graph, []
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        value: Any = module
        for part in node.target.split("."):
            value = getattr(value, part)
        constants.append(value.detach().contiguous())  # as it will be read from a file
        with graph.inserting_after(last):
            last = graph.placeholder(f"constant_{len(constants)}")
        last.meta = dict(node.meta)
        node.replace_all_uses_with(last)
        graph.erase_node(node)
    return GraphModule(nn.Module(), graph), tuple(constants)


def _named_tensors(model: ForceField) -> dict[str, Tensor]:
    if not isinstance(model, nn.Module):
        return {}
    return {name: tensor.detach() for name, tensor in chain(model.named_parameters(), model.named_buffers())}


def _digest(model: ForceField, tensors: dict[str, Tensor], words: Sequence[str]) -> str:
    digest = hashlib.sha256(_code().encode())
    modules = model.modules() if isinstance(model, nn.Module) else [model]
    for kind in dict.fromkeys(type(module) for module in modules):
        source = getattr(sys.modules.get(kind.__module__), "__file__", None)
        digest.update(f"{kind.__module__}.{kind.__qualname__} {_of_file(source)}\n".encode())
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    for word in words:
        digest.update(f"{word}\n".encode())
    return digest.hexdigest()


@cache
def _code() -> str:
    """Return what identifies the code of the graphs: PyTorch's version and our own sources."""
    paths = [path for folder in FOLDERS for path in sorted((PACKAGE / folder).rglob("*.py"))]
    return " ".join([torch.__version__, sys.version, *(_of_file(str(path)) for path in paths)])


@cache
def _of_file(path: str | None) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path and Path(path).is_file() else ""


def _is_ours(directory: Path) -> bool:
    """Return whether nobody but this user can have written a directory; what it holds is code."""
    try:
        state = directory.stat()
    except OSError:
        return False
    return state.st_uid == os.getuid() and not state.st_mode & 0o022


def _layout(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype


def _numbered(tensors: dict[str, Tensor], kind: str) -> Outputs:
    count = sum(1 for name in tensors if name.startswith(f"{kind}."))
    return tuple(tensors[f"{kind}.{place}"] for place in range(count))


def _same(found: Outputs, known: Outputs) -> bool:
    for value, before, relative in zip(found, known, (SAME_ENERGY, SAME_FORCES), strict=False):
        scale = before.abs().max().clamp_min(1e-6) if before.numel() else 1.0
        if value.shape != before.shape or not bool(((value - before).abs() <= relative * scale).all()):
            return False
    return True
