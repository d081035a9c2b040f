"""SevenNet (Park et al., J. Chem. Theory Comput. 2024, 20, 4857) on our edges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor, nn

from mlff_exp.common import expand_home, replace_attribute
from mlff_exp.models.adapters.sevennet import SHIPPED, SevenNetModel
from mlff_exp.models.foreign.settings import TensordotOfTwoTypes, quiet
from mlff_exp.models.foreign.truth import Truth
from mlff_exp.models.graph import Edges

# Errors of a file that holds no network, or another one.
UNUSABLE = (AssertionError, AttributeError, EOFError, KeyError, RuntimeError, UnpicklingError)
# Types in a checkpoint besides tensors and plain values. PyTorch refuses all others.
ARRAYS = [np.ndarray, np.dtype, type(np.dtype("f4")), type(np.dtype("f8")), type(np.dtype("i8"))]
MAKE_ARRAY = (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct")  # type: ignore[attr-defined]


class SevenNet(nn.Module):
    """A SevenNet without its parts that list neighbours, sum energies and differentiate.

    Args:
        net: as ``sevenn`` builds it of a checkpoint.

    Raises:
        ValueError: the network is one of several data sets (modals), which needs the name of one as an input.
    """

    kind: Tensor
    scale: Tensor

    def __init__(self, net: Any) -> None:
        from sevenn.nn.scale import get_resolved_shift_scale

        super().__init__()
        if net.modal_map:
            raise ValueError(
                f"it was trained on several data sets ({', '.join(net.modal_map)}), and our engines choose none: "
                "use a network of one data set"
            )
        parts = dict(net.named_children())
        shift, scale = (
            _by_number(values, net.type_map)
            for values in get_resolved_shift_scale(parts["rescale_atomic_energy"], net.type_map)
        )
        self.cutoffs = (float(net.cutoff),)
        self.elements = {number: shift[number] for number in sorted(net.type_map)}
        self.n_kinds = parts["onehot_idx_to_onehot"].num_classes
        replaced = ("onehot_idx_to_onehot", "rescale_atomic_energy", "reduce_total_enegy", "force_output")
        self.layers = nn.ModuleList(part for name, part in parts.items() if name not in replaced)
        basis = parts["edge_embedding"].basis_function
        if not isinstance(basis.coeffs, nn.Parameter):  # a plain attribute, which no cast and no device would reach
            coeffs = basis.__dict__.pop("coeffs")
            basis.register_buffer("coeffs", coeffs)
        self.register_buffer("kind", net.z_to_onehot_tensor)
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, numbers: Tensor, system: Tensor, n_systems: int, edges: Edges) -> Tensor:
        """Compute the energy of each atom, as `GraphForceField.forward` says."""
        import sevenn._keys as key

        ((index, vectors),) = edges
        kinds = self.kind[numbers]
        attributes = nn.functional.one_hot(kinds, self.n_kinds).to(vectors.dtype)
        data = {
            key.NODE_FEATURE: attributes, key.NODE_ATTR: attributes, key.ATOM_TYPE: kinds,
            key.EDGE_IDX: index, key.EDGE_VEC: vectors,
        }  # fmt: skip
        with _sums_of_any_type(), TensordotOfTwoTypes():
            for layer in self.layers:
                data = layer(data)
        energies: Tensor = data[key.SCALED_ATOMIC_ENERGY].squeeze(-1) * self.scale[numbers]
        return energies


def make(options: SevenNetModel, trust: Sequence[str]) -> SevenNet:
    """Load the network with the weights of a checkpoint.

    Raises:
        ImportError: ``sevenn`` is not installed.
        ValueError: the checkpoint can't be used.
    """
    with quiet(), _plain_files():
        from sevenn.checkpoint import SevenNetCheckpoint

        path = _path(options)
        try:
            return SevenNet(SevenNetCheckpoint(path).build_model())
        except UNUSABLE as error:
            reason = next(iter(str(error).strip().splitlines()), "")
            raise ValueError(f"{path} is no checkpoint of SevenNet: {type(error).__name__}: {reason}") from error


def truth(options: SevenNetModel) -> Truth:
    """Return the comparison with the calculator of ``sevenn``: the same weights, on a cell of four elements."""

    def calculator(device: str, stress: bool = True) -> Any:  # it always gives stress
        with _plain_files():
            from sevenn.calculator import SevenNetCalculator

            return SevenNetCalculator(_path(options), device=device)

    cell = Atoms(
        "SiCHO", [(0, 0, 0), (1.8, 0.3, 0.1), (2.4, 1.2, 0.2), (0.2, 1.7, 1.1)], cell=np.diag([4, 4.4, 5]), pbc=True
    )
    packages = ("sevenn", "e3nn", "torch")
    return Truth(calculator, cell, packages, energy_ev_per_atom=5e-6, force_ev_per_ang=5e-5, stress_ev_per_ang3=1e-6)


@contextmanager
def _sums_of_any_type() -> Iterator[None]:
    """Let messages be summed in their own type: under autocast ``sevenn`` adds FP32 messages to an FP16 buffer."""
    from sevenn.nn import convolution

    def sum_messages(features: Tensor, receivers: Tensor, messages: Tensor) -> Tensor:
        return messages.new_zeros(len(features), *messages.shape[1:]).index_add(0, receivers, messages)

    with replace_attribute(convolution, "message_gather", sum_messages):
        yield


def _path(options: SevenNetModel) -> str:
    """Return the file of a checkpoint. A shipped name never means a file in the current directory."""
    from sevenn import _const as const

    shipped = dict(zip(SHIPPED, (const.SEVENNET_0_11Jul2024, const.SEVENNET_l3i5), strict=True))
    path = expand_home(shipped.get(options.checkpoint, options.checkpoint))
    if not path.is_file():  # sevenn would download a name that it knows
        raise FileNotFoundError(f"{path} is not there")
    return str(path.resolve())


def _by_number(values: Any, type_map: dict[int, int]) -> list[float]:
    """Return a value for each atomic number. A single value is that of all elements."""
    return values if isinstance(values, list) else [float(values)] * (max(type_map) + 1)


@contextmanager
def _plain_files() -> Iterator[None]:
    """Let ``sevenn`` read checkpoints of tensors, arrays and plain values only, without unpickling."""
    import sevenn.checkpoint

    def read(path: Any, **options: Any) -> Any:
        with torch.serialization.safe_globals([*ARRAYS, MAKE_ARRAY]):
            return torch.load(path, map_location="cpu", weights_only=True)

    with replace_attribute(sevenn.checkpoint, "torch_load", read):
        yield
