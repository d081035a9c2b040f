"""Shared fixtures; nothing here needs Hydra or MLflow, so that GPU tests run on bare compute nodes."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

# Before the first import of MLflow, which some tests do by themselves.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Without a GPU Triton's kernels run in its interpreter, if it is told so before it is imported.
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")

import torch._inductor.config
from ase import Atoms
from ase.build import molecule

from mlff_exp.common import secrets
from mlff_exp.engines import compiled, graph_cache
from mlff_exp.models.checkpoint import load_checkpoint
from mlff_exp.models.embedded import Architecture
from mlff_exp.models.painn import PaiNN

REFERENCE_ENERGIES = {"H": -13.6, "C": -1030.0, "N": -1480.0, "O": -2040.0}


def pytest_configure() -> None:
    """Objects that modules and compositions of configurations make are hardly ever garbage: look for it less often."""
    gc.set_threshold(50_000, 20, 100)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups first: each is for one worker, and the others find enough to do besides.

    Then what is slow, or one worker would end with it while the others have nothing left to do.
    """
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in ("xdist_group", "slow")])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture is made: those of a module are dear."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    if item.get_closest_marker("long") and "long" not in item.config.option.markexpr:
        pytest.skip("takes many minutes: pytest -m long")


@pytest.fixture(autouse=True)
def _leave_the_gpu_to_others(request: pytest.FixtureRequest) -> Iterator[None]:
    """Several processes share one GPU, and each would keep all it ever used."""
    yield
    if request.node.get_closest_marker("gpu") and torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


@pytest.fixture(autouse=True)
def _forget_secrets() -> Iterator[None]:
    """What a test teaches to be a secret is none for the next test; thousands of them would make each message slow."""
    before = set(secrets._learned)
    yield
    secrets._learned.intersection_update(before)


@pytest.fixture
def few_autotuning_choices() -> Iterator[None]:
    """Two templates for each product instead of dozens: max-autotune takes a minute less and is the same code."""
    with torch._inductor.config.patch({"test_configs.max_mm_configs": 2}):
        yield


@pytest.fixture
def traced_but_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What compiles hands back what it is given, and counts as having compiled it: that takes seconds less."""
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    monkeypatch.setattr(graph_cache, "compile_graph", lambda module, _: module)
    monkeypatch.setattr(graph_cache, "cache_directory", lambda: None)
    monkeypatch.setattr(compiled, "count_graphs", itertools.count().__next__)


@pytest.fixture(scope="session")
def student() -> PaiNN:
    """The shipped weights, FP32."""
    model = load_checkpoint("student").model
    assert isinstance(model, PaiNN)
    return model


@pytest.fixture(scope="session")
def student_small() -> PaiNN:
    """The smaller shipped weights, FP32; they take half the time where the weights do not matter."""
    model = load_checkpoint("student_small").model
    assert isinstance(model, PaiNN)
    return model


@pytest.fixture(scope="session")
def random_model() -> PaiNN:
    """Small, with random weights of a size that makes every term matter; FP64."""
    return make_random_model()


def make_random_model(n_features: int = 16, n_interactions: int = 2) -> PaiNN:
    torch.manual_seed(0)
    model = PaiNN(Architecture(n_features, n_interactions, 8, 5.0), REFERENCE_ENERGIES)
    for parameter in model.parameters():
        parameter.data.mul_(1.5)
    return model.cast(torch.float64).requires_grad_(False)


@pytest.fixture(scope="session")
def fresh_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tracking.connect` makes it, which takes MLflow a second."""
    from mlff_exp.tracking.local import make_database

    database = tmp_path_factory.mktemp("fresh") / "mlflow.db"
    make_database(database)
    return database


@pytest.fixture
def mlruns(tmp_path: Path, fresh_database: Path) -> Path:
    """A directory with a fresh store in it, where a command started in ``tmp_path`` looks for its own."""
    directory = tmp_path / "mlruns"
    directory.mkdir()
    shutil.copy(fresh_database, directory)
    return directory


@pytest.fixture
def benzene() -> Atoms:
    return molecule("C6H6")


def rattled(name: str, seed: int, scale: float = 0.08) -> Atoms:
    atoms = molecule(name)
    atoms.positions += np.random.default_rng(seed).normal(scale=scale, size=atoms.positions.shape)
    return atoms


def cluster(n_atoms: int, seed: int) -> Atoms:
    """Atoms of four elements near the points of a cubic grid."""
    rng = np.random.default_rng(seed)
    points = np.argwhere(np.ones((4, 4, 4)))[:n_atoms]
    return Atoms(rng.choice(list("HCNO"), n_atoms), 1.8 * points + rng.normal(scale=0.1, size=points.shape))
