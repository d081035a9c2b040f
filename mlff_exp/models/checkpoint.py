"""Read and write model weights: safetensors with a JSON header, recognised by content; only tensors are unpickled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from ase.data import chemical_symbols
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from mlff_exp.common import atomic_file, expand_home, parse_json, refuse_irregular
from mlff_exp.config import CHECKPOINTS, shipped_checkpoints
from mlff_exp.models.embedded import Architecture
from mlff_exp.models.painn import PaiNN
from mlff_exp.models.predecessor import PredecessorPaiNN, check_weights, is_predecessor, load_predecessor, misfit
from mlff_exp.models.probe import refuse_no_force_field
from mlff_exp.models.torch_files import read_torch_file

FORMAT = "mlff_exp.painn.v2"
UNITS = {"length": "Å", "energy": "eV", "force": "eV/Å"}
HEADER_KEY = "mlff_exp"
MAX_REFERENCE_EV = 2e6  # all electrons of the heaviest element are bound by less


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Header:
    """The header of a checkpoint: the facts that the file states about the weights.

    Attributes:
        architecture: sizes and cutoff.
        reference_energies: eV per atom by chemical symbol; its keys are the elements the model knows.
        teacher: where the labels came from.
        training_data_sha256: SHA-256 of the training set.
    """

    architecture: Architecture
    reference_energies: Mapping[str, float]
    teacher: str
    training_data_sha256: str
    units: Mapping[str, str] = field(default_factory=lambda: UNITS)
    format: str = FORMAT

    def to_json(self) -> str:
        """Return the header as the JSON text that the file holds."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Header:
        """Parse and check the JSON text of a header.

        Raises:
            ValueError: not JSON, a key missing or unknown, another format, other units or an unknown element.
        """
        values: Any = parse_json(text)
        expected = {item.name for item in dataclasses.fields(Header)}
        if not isinstance(values, dict) or set(values) != expected:
            raise ValueError(f"its header must hold exactly {sorted(expected)}")
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {values['format']!r}, this version reads {FORMAT!r}")
        if values["units"] != UNITS:
            raise ValueError(f"its units are {values['units']}, expected {UNITS}")
        reference = values["reference_energies"]
        if not isinstance(reference, dict) or not reference:
            raise ValueError("its reference_energies are not a number for each element")
        unknown = sorted(set(reference) - set(chemical_symbols[1:]))
        if unknown:
            raise ValueError(f"it names elements that do not exist: {', '.join(unknown)}")
        # The rows of the embedding follow this order.
        if list(reference) != sorted(reference, key=chemical_symbols.index):
            raise ValueError(
                f"its reference_energies are in the order {', '.join(reference)}, and not in that of atomic numbers: "
                "a program has rewritten the header"
            )
        for symbol, energy in reference.items():
            if type(energy) not in (int, float) or not abs(energy) <= MAX_REFERENCE_EV:
                raise ValueError(f"its reference energy of {symbol} is {energy!r}, not within ±{MAX_REFERENCE_EV:g} eV")
        for name in ("teacher", "training_data_sha256"):
            if not isinstance(values[name], str):
                raise ValueError(f"its {name} is not a string")
        try:
            architecture = Architecture(**values.pop("architecture"))
        except TypeError as error:
            raise ValueError(f"its architecture is not one we know ({error})") from None
        try:
            architecture.refuse_absurd()
        except ValueError as error:
            raise ValueError(f"its architecture has {error}") from None
        return Header(architecture=architecture, **values)


@dataclass(frozen=True)
class Checkpoint:
    """Loaded weights and their origin.

    Attributes:
        model: FP32 weights, frozen, in evaluation mode, on the CPU.
        header: the header of the file.
        path: path of the file.
        weights_sha256: identifies the weights whatever the container.
    """

    model: PaiNN | PredecessorPaiNN
    header: Header
    path: Path
    weights_sha256: str


def checkpoint_path(name_or_path: str | Path) -> Path:
    """Return the path of a checkpoint, given by the name of a shipped one or by a path.

    Raises:
        CheckpointError: neither; the message lists the shipped names.
    """
    if str(name_or_path) in shipped_checkpoints():
        return CHECKPOINTS / f"{name_or_path}.safetensors"
    path = expand_home(name_or_path)
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint {str(name_or_path)!r}: neither a file nor one of: {', '.join(shipped_checkpoints())}"
        )
    return path


def save_checkpoint(model: PaiNN, path: str | Path, *, teacher: str, training_data_sha256: str) -> None:
    """Write the weights as FP32 safetensors, in one atomic step."""
    reference = dict(zip(model.elements, model.reference_energies[1:].tolist(), strict=True))
    header = Header(model.architecture, reference, teacher, training_data_sha256)
    weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_file(Path(path)) as partial:
        save_file(weights, partial, metadata={HEADER_KEY: header.to_json()})


def load_checkpoint(name_or_path: str | Path) -> Checkpoint:
    """Load a shipped checkpoint by name or any file by path.

    Raises:
        CheckpointError: there is no such file, or it is corrupt, truncated or foreign. The message says which.
    """
    path = checkpoint_path(name_or_path)
    try:
        refuse_irregular(path, None)
        with path.open("rb") as file:
            magic = file.read(9)
    except ValueError as error:
        raise CheckpointError(f"{path}: neither a safetensors nor a PyTorch checkpoint ({error})") from error
    except OSError as error:
        raise CheckpointError(f"{path}: it can't be read: {error.strerror}") from error
    if magic[:4] == b"PK\x03\x04":
        content = _read_torch(path)
        if is_predecessor(content):
            return _load_legacy(content, path)
        text, weights = content["header"], content["weights"]
    elif magic[8:9] == b"{":
        text, weights = _read_safetensors(path)
    else:
        raise CheckpointError(f"{path}: neither a safetensors nor a PyTorch checkpoint (it begins with {magic[:8]!r})")
    try:
        header = Header.from_json(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error

    # A model without memory shows whether the weights have the right shapes.
    with torch.device("meta"):
        skeleton = PaiNN(header.architecture, header.reference_energies)
    try:
        check_weights(weights)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if unfit := misfit(weights, {name: weight.shape for name, weight in skeleton.state_dict().items()}):
        raise CheckpointError(f"{path}: its weights do not fit its header: {unfit}")
    model = PaiNN(header.architecture, header.reference_energies)
    model.load_state_dict(weights)
    model.requires_grad_(False)
    try:
        refuse_no_force_field(model.eval())
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Checkpoint(model, header, path, _weights_sha256(model.state_dict()))


def _read_safetensors(path: Path) -> tuple[str, dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: corrupt or truncated safetensors file: {error}") from error
    if HEADER_KEY not in metadata:
        raise CheckpointError(f"{path}: a foreign safetensors file: its metadata has no {HEADER_KEY!r} entry")
    return metadata[HEADER_KEY], weights


def _load_legacy(content: Mapping[str, Any], path: Path) -> Checkpoint:
    try:
        model = load_predecessor(content).requires_grad_(False)
        refuse_no_force_field(model)
    except ValueError as error:
        raise CheckpointError(f"{path}: a checkpoint of the predecessor, but {error}") from error
    # It has no energies of isolated atoms, and says nothing of its labels.
    header = Header(model.architecture, dict.fromkeys(model.elements, 0.0), "unknown", "unknown")
    return Checkpoint(model, header, path, _weights_sha256(model.state_dict()))


def _read_torch(path: Path) -> dict[str, Any]:
    try:
        content = read_torch_file(path)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if not is_predecessor(content) and not (
        isinstance(content, dict)
        and set(content) == {"header", "weights"}
        and isinstance(content["header"], str)
        and isinstance(content["weights"], dict)
        and all(isinstance(weight, Tensor) for weight in content["weights"].values())
    ):
        raise CheckpointError(
            f"{path}: a foreign PyTorch file: expected a dict with 'header', a text, and 'weights', tensors by name, "
            "or the predecessor's with 'config' and 'model_state_dict'"
        )
    checked: dict[str, Any] = content
    return checked


def _weights_sha256(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].numpy().tobytes())
    return digest.hexdigest()
