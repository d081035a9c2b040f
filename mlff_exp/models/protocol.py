"""The interface of force fields that engines use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from mlff_exp.structures import AtomicBatch


@runtime_checkable
class ForceField(Protocol):
    """A differentiable energy of a batch, whose gradient engines take.

    A force field with forces of its own has an attribute ``capabilities`` with ``forces="own"``. It returns the
    energies and the forces, [n_rows, 3] eV/Å. It is a `torch.nn.Module` that does not depend on compiling, precision or
    timing.
    """

    @property
    def cutoff(self) -> float:
        """The largest distance at which two atoms interact, Å: the radius of the neighbour list."""

    @property
    def elements(self) -> tuple[str, ...] | None:
        """Chemical symbols that it knows, or None if it takes any element."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the network's weights."""

    def cast(self, dtype: torch.dtype) -> Self:
        """Cast the network's weights in place. What has to stay FP64, such as reference energies, stays so."""

    def check_elements(self, symbols: Iterable[str]) -> None:
        """Refuse elements that it does not know.

        Raises:
            ValueError: names them and the known ones.
        """

    def __call__(self, batch: AtomicBatch) -> Tensor:
        """Energy of each system, [n_systems] eV, FP64."""

    def to(self, device: torch.device) -> Self:
        """Move it to a device, as `torch.nn.Module.to` does."""

    def eval(self) -> Self:
        """Put it into evaluation mode, as `torch.nn.Module.eval` does."""

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze or thaw its weights, as `torch.nn.Module.requires_grad_` does."""

    def state_dict(self) -> dict[str, Tensor]:
        """Its weights by name, as `torch.nn.Module.state_dict` does."""

    def modules(self) -> Iterable[nn.Module]:
        """Its parts, as `torch.nn.Module.modules` does."""
