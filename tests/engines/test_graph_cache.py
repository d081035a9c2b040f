"""Compiled graphs on disk: found again for the same model, and for no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mlff_exp.engines import graph_cache
from mlff_exp.engines.eager import energy_and_forces
from mlff_exp.engines.graph_cache import GraphCache, KeptGraph
from mlff_exp.engines.tracing import trace
from mlff_exp.models.painn import PaiNN
from mlff_exp.structures.batch import AtomicBatch, collate
from tests.conftest import make_random_model, rattled

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, whose graphs are Python modules: compiling for real is tested in tests/integration."""
    modules: dict[Path, Any] = {}

    def save(compiled: Any, path: Path) -> None:
        path.write_bytes(b"compiled")
        modules[path.parent.parent] = compiled  # the draft of a directory gets another name

    monkeypatch.setattr(graph_cache, "cache_directory", lambda: tmp_path)
    monkeypatch.setattr(graph_cache, "compile_graph", lambda module, _: module)
    monkeypatch.setattr(graph_cache, "save_compiled", save)
    monkeypatch.setattr(graph_cache, "load_compiled", lambda path: modules[path.parent.parent])
    return tmp_path


def frozen(**options: int) -> PaiNN:
    return make_random_model(**options).requires_grad_(False)


def compiled(model: PaiNN, batch: AtomicBatch, words: tuple[str, ...] = ("fp64",)) -> KeptGraph:
    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        return energy_and_forces(model, batch.with_tensors(*tensors), "fp64")

    return GraphCache(model, words).compile(batch, trace(function, batch.tensors()))


def water(seed: int = 0, n_systems: int = 1) -> AtomicBatch:
    return collate([rattled("H2O", seed + number) for number in range(n_systems)], 5.0)


def test_a_graph_is_found_again_and_gives_the_same_bits() -> None:
    first = compiled(frozen(), water())
    again = GraphCache(frozen(), ["fp64"]).find(water(7))
    assert again is not None
    for found, expected in zip(again(*water(3).tensors()), first(*water(3).tensors()), strict=True):
        assert torch.equal(found, expected)


def test_the_weights_are_those_of_the_model_itself() -> None:
    compiled(frozen(), water())
    model = frozen()
    again = GraphCache(model, ["fp64"]).find(water())
    assert again is not None
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert sum(tensor.data_ptr() in own for tensor in again.constants) > 10


@pytest.mark.parametrize("what", ["weights", "shape", "words", "size", "code"])
def test_a_graph_of_something_else_is_not_found(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(frozen(), water())
    model, batch, words = frozen(), water(), ["fp64"]
    if what == "weights":
        next(model.parameters())[0, 0] += 1e-6
    elif what == "shape":
        batch = water(n_systems=2)
    elif what == "words":
        words = ["fp32"]
    elif what == "size":
        model = frozen(n_interactions=1)
    else:
        monkeypatch.setattr(graph_cache, "_code", lambda: "another version")
    assert GraphCache(model, words).find(batch) is None


def test_a_model_that_computes_something_else_gets_no_graph_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that neither weights nor code tell, such as of an attribute."""
    compiled(frozen(), water())
    forward = PaiNN.forward
    monkeypatch.setattr(PaiNN, "forward", lambda self, batch: 1.001 * forward(self, batch))
    assert GraphCache(frozen(), ["fp64"]).find(water()) is None


@pytest.mark.parametrize("name", ["graph.bin", "tensors.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "garbage"])
def test_a_damaged_file_is_no_graph(directory: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: str) -> None:
    compiled(frozen(), water())
    monkeypatch.setattr(graph_cache, "load_compiled", lambda path: torch.load(path, weights_only=True))
    (file,) = directory.rglob(name)
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:20] if damage == "cut" else b"\0garbage" * 50)
    assert GraphCache(frozen(), ["fp64"]).find(water()) is None


def test_a_directory_that_others_may_write_is_not_read(directory: Path) -> None:
    """What it holds is code."""
    compiled(frozen(), water())
    (file,) = directory.rglob("graph.bin")
    file.parent.chmod(0o777)
    assert GraphCache(frozen(), ["fp64"]).find(water()) is None


def test_a_full_disk_keeps_nothing_and_fails_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(graph_cache, "save_compiled", full)
    graph = compiled(frozen(), water())
    assert graph(*water().tensors())[0].isfinite().all()
    assert not list(directory.rglob("graph.bin"))


def test_without_caches_nothing_is_written(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "cache_directory", lambda: None)
    compiled(frozen(), water())
    assert not any(directory.iterdir())
    assert GraphCache(frozen(), ["fp64"]).find(water()) is None
