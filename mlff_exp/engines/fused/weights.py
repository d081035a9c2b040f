"""Weights of PaiNN in the layout of the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import triton
from torch import Tensor, nn
from torch.nn import functional

from mlff_exp.models import Message, PaiNN, Update


@dataclass(frozen=True)
class Weights:
    """Weights in the layout of the kernels: operands of products as [in, out], features padded to a power of two.

    Attributes:
        tensors: ``weights``, ``offsets`` and the tables by atomic number.
    """

    features: int
    half: int
    n_rbf: int
    rbf: int
    n_layers: int
    cutoff: float
    tensors: tuple[Tensor, ...]
    out_bias: float

    @staticmethod
    def of(model: PaiNN, low: torch.dtype, device: torch.device) -> Weights:
        """Arrange the weights of a model.

        Args:
            model: frozen.
            low: dtype of the operands of products.
            device: device of the kernels.
        """
        n, n_rbf = model.architecture.n_features, model.architecture.n_rbf
        features, rbf = max(32, triton.next_power_of_2(n)), max(16, triton.next_power_of_2(n_rbf + 1))
        half = max(16, triton.next_power_of_2(n // 2))

        def padded(values: Tensor, *sizes: int) -> Tensor:
            """Pad the last axes with zeros."""
            missing = [size - there for size, there in zip(sizes, values.shape[-len(sizes) :], strict=True)]
            pad = [number for count in reversed(missing) for number in (0, count)]
            return functional.pad(values.detach().float(), pad).to(device).contiguous()

        operands, vectors = [], []
        for module, other in zip(model.messages, model.updates, strict=True):
            message, update = cast(Message, module), cast(Update, other)
            first, second = _linear(message.scalar_net, 0), _linear(message.scalar_net, 2)
            hidden, gates = _linear(update.scalar_net, 0), _linear(update.scalar_net, 2)
            filters = torch.cat([message.filter_net.weight, message.filter_net.bias.unsqueeze(-1)], dim=-1)
            for parts in (
                first.weight.view(1, n, n),
                second.weight.view(3, n, n),
                update.mix.weight.view(2, n, n),
                hidden.weight.view(n, 2, n).transpose(0, 1),
                gates.weight.view(3, n, n),
            ):  # [parts, out, in]: forward as [in, out], backward as they are
                operands += [padded(parts.transpose(1, 2), features, features), padded(parts, features, features)]
            operands.append(padded(filters.view(3, n, n_rbf + 1).transpose(1, 2), rbf, features))
            vectors += [
                padded(bias.view(-1, n), features) for bias in (first.bias, second.bias, hidden.bias, gates.bias)
            ]
        with torch.no_grad():
            phi0 = cast(Message, model.messages[0]).scalar_net(model.embedding.weight).view(-1, 3, n)
        into, out = _linear(model.readout, 0), _linear(model.readout, 2)
        operands += [padded(into.weight.t(), features, half), padded(into.weight, half, features)]
        vectors += [padded(into.bias, half), padded(out.weight.view(-1), half)]
        element = model.element_index  # the tables below are by atomic number, so that kernels do not need this index
        return Weights(
            features=features,
            half=half,
            n_rbf=n_rbf,
            rbf=rbf,
            n_layers=model.architecture.n_interactions,
            cutoff=model.architecture.cutoff,
            tensors=(
                torch.cat([values.flatten() for values in operands]).to(low),
                torch.cat([values.flatten() for values in vectors]),
                model.covalent_radius[element].float().to(device),
                model.nuclear_charge[element].float().to(device),
                padded(model.embedding.weight[element], features),
                padded(phi0[element], features),
                model.reference_energies[element].to(device),
            ),
            out_bias=float(out.bias.detach()),
        )


def _linear(layers: nn.Sequential, index: int) -> nn.Linear:
    return cast(nn.Linear, layers[index])
