"""The predecessor's checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from mlff_exp.engines.factory import make_engine
from mlff_exp.models.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from mlff_exp.models.predecessor import PredecessorPaiNN, PredecessorWarning
from mlff_exp.structures.batch import collate

CONFIG = {"hidden_dim": 8, "num_interactions": 2, "num_rbf": 6, "cutoff": 4.0, "max_z": 10}
HEAD = {"energy_head.0": (64, 8), "energy_head.2": (32, 64), "energy_head.4": (1, 32)}


def content(prefix: str = "", **config: Any) -> dict[str, Any]:
    """A checkpoint as the predecessor wrote it, with the names and shapes of its documentation."""
    generator = torch.Generator().manual_seed(0)
    layers = dict(HEAD)
    for i in range(2):
        layers |= {
            f"interactions.{i}.message.rbf_to_scalar.0": (8, 6),
            f"interactions.{i}.message.rbf_to_scalar.2": (24, 8),
            f"interactions.{i}.update.update_mlp.0": (8, 16),
            f"interactions.{i}.update.update_mlp.2": (24, 8),
        }
    weights = {}
    for name, shape in layers.items():
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) * 0.4
        weights[f"{name}.bias"] = torch.randn(shape[0], generator=generator) * 0.2
    for i in range(2):
        weights[f"interactions.{i}.update.mixing_matrix"] = torch.randn(3, 3, generator=generator)
    weights["embedding.weight"] = torch.randn(10, 8, generator=generator)
    weights["rbf.centers"] = torch.linspace(0, 4, 6)
    weights["rbf.widths"] = torch.full((6,), 0.8)
    return {"config": {**CONFIG, **config}, "model_state_dict": {prefix + k: v for k, v in weights.items()}}


def load(tmp_path: Path, saved: dict[str, Any]) -> Checkpoint:
    path = tmp_path / "predecessor.pt"
    torch.save(saved, path)
    with pytest.warns(PredecessorWarning, match="changes when a molecule is turned and jumps at the cutoff"):
        return load_checkpoint(path)


def by_hand(saved: dict[str, Any], atoms: Atoms) -> float:
    """The forward pass as its description says it, atom by atom, in NumPy and FP64."""
    w = {name: tensor.double().numpy() for name, tensor in saved["model_state_dict"].items()}

    def silu(x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-x))

    def mlp(x: np.ndarray, name: str, layers: tuple[int, ...]) -> np.ndarray:
        for number in layers:
            x = w[f"{name}.{number}.weight"] @ x + w[f"{name}.{number}.bias"]
            if number != layers[-1]:
                x = silu(x)
        return x

    n = len(atoms)
    s = w["embedding.weight"][atoms.numbers]
    v = np.zeros((n, 8, 3))
    for block in range(2):
        new_s, new_v = s.copy(), v.copy()
        for i in range(n):
            for j in range(n):
                r = atoms.positions[j] - atoms.positions[i]
                d = np.linalg.norm(r)
                if i == j or d >= CONFIG["cutoff"]:
                    continue
                rbf = np.exp(-((d - w["rbf.centers"]) ** 2) / w["rbf.widths"] ** 2)
                rbf = rbf * 0.5 * (np.cos(np.pi * d / CONFIG["cutoff"]) + 1)
                phi = mlp(rbf, f"interactions.{block}.message.rbf_to_scalar", (0, 2))
                new_s[i] += s[j] * phi[:8]
                new_v[i] += v[j] * phi[8:16, None] + phi[16:, None] * (r / d)
        s, v = new_s, new_v
        for i in range(n):
            norm = np.sqrt((v[i] ** 2).sum(axis=-1) + 1e-8)
            a, b, c = np.split(mlp(np.concatenate([s[i], norm]), f"interactions.{block}.update.update_mlp", (0, 2)), 3)
            mixed = v[i] @ w[f"interactions.{block}.update.mixing_matrix"].T
            s[i], v[i] = s[i] + a, v[i] * b[:, None] + mixed * c[:, None]
    return float(sum(mlp(s[i], "energy_head", (0, 2, 4))[0] for i in range(n)))


@pytest.mark.parametrize("prefix", ["", "model."])
def test_it_computes_what_the_predecessor_computed(tmp_path: Path, prefix: str) -> None:
    atoms = molecule("CH3CH2OH")
    saved = content(prefix)
    loaded = load(tmp_path, saved)
    assert isinstance(loaded.model, PredecessorPaiNN)
    prediction = make_engine(loaded.model, "eager", "fp64", torch.device("cpu"))(collate([atoms, molecule("H2O")], 4.0))
    assert prediction.energy[0].item() == pytest.approx(by_hand(content(), atoms), rel=1e-12)
    assert prediction.energy[1].item() == pytest.approx(by_hand(content(), molecule("H2O")), rel=1e-12)
    step = 1e-5
    for sign, axis in ((1, 0), (1, 1), (1, 2)):
        plus, minus = atoms.copy(), atoms.copy()
        plus.positions[2, axis] += sign * step
        minus.positions[2, axis] -= sign * step
        slope = (by_hand(content(), plus) - by_hand(content(), minus)) / (2 * step)
        assert prediction.forces[2, axis].item() == pytest.approx(-slope, abs=1e-7)


def test_it_is_as_wrong_as_it_was(tmp_path: Path) -> None:
    model = load(tmp_path, content()).model
    atoms, turned = molecule("CH3CH2OH"), molecule("CH3CH2OH")
    turned.rotate(40, (1, 2, 3))
    energy = make_engine(model, "eager", "fp64", torch.device("cpu"))(collate([atoms, turned], 4.0)).energy
    assert abs(energy[0] - energy[1]) > 1e-6


def test_elements_without_an_embedding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not trained on S; it knows H, He, Li, Be, B, C, N, O, F"):
        load(tmp_path, content()).model.check_elements(["H", "S"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved["config"].pop("cutoff"), "its config lacks cutoff"),
        (lambda saved: saved["model_state_dict"].pop("embedding.weight"), "its weights do not fit its config"),
        (lambda saved: saved["config"].update(hidden_dim=16), "its weights do not fit its config"),
        (lambda saved: saved["config"].update(num_interactions=10**6), "n_interactions=1000000 is not a whole number"),
        (lambda saved: saved["config"].update(max_z=10**9), "max_z=1000000000 is not a whole number from 2 to 1000"),
        (lambda saved: saved["config"].update(cutoff=float("nan")), "cutoff=nan is not a number from"),
        (lambda saved: saved.update(model_state_dict=[1]), "its model_state_dict holds no weights by name"),
        (
            lambda saved: saved["model_state_dict"].update({"rbf.centers": torch.arange(6)}),
            "weight 'rbf.centers' is int64, and weights are float32",
        ),
        (
            lambda saved: saved["model_state_dict"].update({"rbf.centers": torch.full((6,), torch.nan)}),
            "weight 'rbf.centers' holds NaN or infinite values",
        ),
    ],
)
def test_what_is_wrong_with_one_is_said(tmp_path: Path, change: Any, message: str) -> None:
    saved = content()
    change(saved)
    path = tmp_path / "broken.pt"
    torch.save(saved, path)
    with pytest.raises(CheckpointError, match=rf"broken\.pt: a checkpoint of the predecessor, but {message}"):
        load_checkpoint(path)


@pytest.mark.filterwarnings("ignore::mlff_exp.models.predecessor.PredecessorWarning")
@pytest.mark.parametrize(
    ("factor", "message"), [(0.0, "feel no force"), (1e-42, "feel no force"), (1e30, "more than 1e\\+06")]
)
def test_weights_that_are_no_force_field_are_refused(tmp_path: Path, factor: float, message: str) -> None:
    saved = content()
    for name, weight in saved["model_state_dict"].items():
        if not name.startswith("rbf."):
            weight *= torch.tensor(factor, dtype=torch.float64).float()
    torch.save(saved, tmp_path / "scaled.pt")
    with pytest.raises(CheckpointError, match=f"its weights are no force field: .*{message}"):
        load_checkpoint(tmp_path / "scaled.pt")
