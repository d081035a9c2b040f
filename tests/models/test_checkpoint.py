"""Checkpoints: what is written is read, and what is wrong is named."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mlff_exp.config.checkpoints import shipped_checkpoints
from mlff_exp.models.checkpoint import HEADER_KEY, CheckpointError, load_checkpoint, save_checkpoint
from mlff_exp.models.painn import PaiNN
from mlff_exp.structures.batch import collate
from tests.conftest import rattled


@pytest.fixture
def saved(random_model: PaiNN, tmp_path: Path) -> Path:
    path = tmp_path / "model.anything"
    save_checkpoint(random_model, path, teacher="none", training_data_sha256="0" * 64)
    return path


def test_round_trip(random_model: PaiNN, saved: Path) -> None:
    loaded = load_checkpoint(saved)
    assert isinstance(loaded.model, PaiNN)
    assert loaded.model.elements == random_model.elements
    assert loaded.header.architecture == random_model.architecture
    assert torch.equal(loaded.model.reference_energies, random_model.reference_energies)
    batch = collate([rattled("H2O", 0)], 5.0)
    expected = random_model(batch)
    assert torch.allclose(loaded.model.cast(torch.float64)(batch), expected, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_the_hash_names_the_weights_and_not_the_file(saved: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy.safetensors"
    shutil.copy(saved, copied)
    loaded, again = load_checkpoint(saved), load_checkpoint(copied)
    assert loaded.weights_sha256 == again.weights_sha256
    assert isinstance(loaded.model, PaiNN)
    loaded.model.state_dict()["readout.2.bias"] += 1
    save_checkpoint(loaded.model, copied, teacher="none", training_data_sha256="0" * 64)
    assert load_checkpoint(copied).weights_sha256 != again.weights_sha256


@pytest.mark.parametrize("name", shipped_checkpoints())
def test_shipped_checkpoints_say_where_they_come_from(name: str) -> None:
    loaded = load_checkpoint(name)
    assert loaded.header.teacher.startswith("GFN2-xTB")
    assert len(loaded.header.training_data_sha256) == 64
    assert set(loaded.model.elements) >= {"H", "C", "N", "O"}


def test_a_pytorch_file_is_told_by_its_content(saved: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(saved)
    path = tmp_path / "weights.safetensors"  # the suffix lies
    torch.save({"header": loaded.header.to_json(), "weights": loaded.model.state_dict()}, path)
    assert load_checkpoint(path).weights_sha256 == loaded.weights_sha256


def header(saved: Path, **changes: object) -> dict[str, str]:
    values = json.loads(load_checkpoint(saved).header.to_json())
    return {HEADER_KEY: json.dumps(values | changes)}


def weights(saved: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(saved).model.state_dict())


def truncated(saved: Path, path: Path) -> None:
    path.write_bytes(saved.read_bytes()[:-100])


def garbage(_: Path, path: Path) -> None:
    path.write_bytes(os.urandom(8) + b"!" + os.urandom(100))


def foreign(_: Path, path: Path) -> None:
    save_file({"x": torch.zeros(1)}, path)


def other_units(saved: Path, path: Path) -> None:
    save_file(weights(saved), path, metadata=header(saved, units={"length": "bohr"}))


def other_format(saved: Path, path: Path) -> None:
    save_file(weights(saved), path, metadata=header(saved, format="mlff_exp.painn.v9"))


def other_element(saved: Path, path: Path) -> None:
    save_file(weights(saved), path, metadata=header(saved, reference_energies={"Xx": 0.0}))


def missing_weight(saved: Path, path: Path) -> None:
    kept = weights(saved)
    del kept["embedding.weight"]
    save_file(kept, path, metadata=header(saved))


def nan_weight(saved: Path, path: Path) -> None:
    changed = weights(saved)
    changed["embedding.weight"] = changed["embedding.weight"] * torch.nan
    save_file(changed, path, metadata=header(saved))


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def pickled_code(_: Path, path: Path) -> None:
    torch.save({"header": Payload(), "weights": {}}, path)


def flipped_bit(saved: Path, path: Path) -> None:
    kept = weights(saved)
    torch.save({"header": header(saved)[HEADER_KEY], "weights": kept}, path)
    content = bytearray(path.read_bytes())
    content[content.index(kept["readout.0.weight"].numpy().tobytes()) + 3] ^= 1
    path.write_bytes(content)


def foreign_torch(_: Path, path: Path) -> None:
    torch.save({"epoch": 3}, path)


def torch_without_text(saved: Path, path: Path) -> None:
    torch.save({"header": 3, "weights": weights(saved)}, path)


def torch_without_weights(saved: Path, path: Path) -> None:
    torch.save({"header": header(saved)[HEADER_KEY], "weights": [1.0]}, path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncated, "corrupt or truncated safetensors"),
        (garbage, "neither a safetensors nor a PyTorch checkpoint"),
        (foreign, "foreign safetensors file"),
        (other_units, "its units are"),
        (other_format, r"its format is 'mlff_exp.painn.v9', this version reads"),
        (other_element, "elements that do not exist: Xx"),
        (missing_weight, r"do not fit its header(.|\n)*embedding.weight"),
        (nan_weight, "'embedding.weight' holds NaN"),
        (pickled_code, r"refused, because it holds more than weights: the object \w+\.system$"),
        (flipped_bit, r"corrupt or truncated PyTorch file: the checksum of \S+ is wrong$"),
        (foreign_torch, "foreign PyTorch file"),
        (torch_without_text, "foreign PyTorch file"),
        (torch_without_weights, "foreign PyTorch file"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: object, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "spoiled"
    spoil(saved, path)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_a_missing_file_lists_the_shipped_names(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither a file nor one of: .*student"):
        load_checkpoint(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": {"n_interactions": 1_000_000}}, "n_interactions=1000000 is not a whole number from 1 to 64"),
        ({"architecture": {"n_features": 10**9}}, "n_features=1000000000 is not a whole number"),
        ({"architecture": {"n_features": 16.0}}, "n_features=16.0 is not a whole number"),
        ({"architecture": {"n_rbf": True}}, "n_rbf=True is not a whole number"),
        ({"architecture": {"cutoff": 1e9}}, r"cutoff=1000000000.0 is not a number from 0\.5 to 50 Å"),
        ({"architecture": {"cutoff": -5.0}}, r"cutoff=-5\.0 is not"),
        ({"architecture": {"cutoff": "5"}}, "cutoff='5' is not"),
        ({"architecture": {"n_features": 32}}, "its weights do not fit its header: .* has the shape"),
        ({"architecture": []}, "its architecture is not one we know"),
        ({"reference_energies": {}}, "reference_energies are not a number for each element"),
        ({"reference_energies": [1]}, "reference_energies are not a number for each element"),
        (
            {"reference_energies": {"C": 0.0, "H": 0.0}},
            "its reference_energies are in the order C, H, and not in that of",
        ),
        ({"reference_energies": {"H": 1e300}}, "its reference energy of H is 1e"),
        ({"reference_energies": {"H": "1"}}, "its reference energy of H is '1'"),
        ({"teacher": 5}, "its teacher is not a string"),
    ],
)
def test_a_header_is_not_believed(saved: Path, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    known = json.loads(header(saved)[HEADER_KEY])
    for key, value in changes.items():
        known[key] = {**known[key], **value} if isinstance(value, dict) and value and key == "architecture" else value
    path = tmp_path / "absurd.safetensors"
    save_file(weights(saved), path, metadata={HEADER_KEY: json.dumps(known)})
    with pytest.raises(CheckpointError, match=rf"absurd.safetensors: .*{message}"):
        load_checkpoint(path)


@pytest.mark.parametrize("text", ['{"format": NaN}', '{"format": 1, "format": 2}', "[" * 100_000, "null", "5"])
def test_a_header_that_is_none_is_refused(saved: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "absurd.safetensors"
    save_file(weights(saved), path, metadata={HEADER_KEY: text})
    with pytest.raises(CheckpointError, match=r"absurd.safetensors: "):
        load_checkpoint(path)


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64, torch.float64, torch.float16, torch.bool])
def test_weights_are_not_converted(saved: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    changed = weights(saved)
    name = sorted(changed)[0]
    changed[name] = changed[name].to(dtype)
    torch.save({"header": header(saved)[HEADER_KEY], "weights": changed}, tmp_path / "other.pt")
    with pytest.raises(
        CheckpointError, match=rf"other.pt: weight '{name}' is {str(dtype)[6:]}, and weights are float32"
    ):
        load_checkpoint(tmp_path / "other.pt")


def test_tensors_without_numbers_are_refused(saved: Path, tmp_path: Path) -> None:
    for change in (lambda tensor: tensor.to("meta"), lambda tensor: tensor.to_sparse()):
        changed = {name: change(tensor) for name, tensor in weights(saved).items()}
        torch.save({"header": header(saved)[HEADER_KEY], "weights": changed}, tmp_path / "other.pt")
        with pytest.raises(CheckpointError, match=r"other.pt: "):
            load_checkpoint(tmp_path / "other.pt")
    with_huge = weights(saved)
    name = sorted(with_huge)[0]
    with_huge[name] = torch.zeros(1).expand(10**6, 10**6)
    torch.save({"header": header(saved)[HEADER_KEY], "weights": with_huge}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=rf"do not fit its header: {name} has the shape"):
        load_checkpoint(tmp_path / "other.pt")


@pytest.mark.parametrize(
    ("factor", "message"),
    [(0.0, "feel no force"), (1e-42, "feel no force"), (1e4, "more than 1e\\+09"), (1e30, "more than 1e\\+06")],
)
def test_weights_that_are_no_force_field_are_refused(saved: Path, tmp_path: Path, factor: float, message: str) -> None:
    path = tmp_path / "scaled.safetensors"
    scaled = {
        name: weight * torch.tensor(factor, dtype=torch.float64).to(weight.dtype)
        for name, weight in weights(saved).items()
    }
    save_file(scaled, path, metadata=header(saved))
    with pytest.raises(CheckpointError, match=f"scaled.safetensors: its weights are no force field: .*{message}"):
        load_checkpoint(path)
    torch.save({"header": header(saved)[HEADER_KEY], "weights": scaled}, path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_a_file_that_the_system_makes_up_is_no_checkpoint() -> None:
    with pytest.raises(CheckpointError, match="it is empty"):
        load_checkpoint("/proc/self/mounts")
