"""A small MACE with weights from a seed, in a file as its users have them; `mace-torch` has to be installed."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlff_exp.models.foreign.settings import default_dtype, quiet, settings_kept

ENERGIES = {1: -13.6, 6: -1030.0, 8: -2040.0}
_directory = tempfile.TemporaryDirectory(prefix="small_mace")


def make_network(heads: tuple[str, ...] = ("Default",)) -> Any:
    """A network of two layers that knows H, C and O, FP64."""
    with settings_kept(), quiet(), default_dtype(torch.float64):
        import mace  # noqa: F401 (its e3nn can be imported only after it)
        from e3nn import o3
        from mace.modules import ScaleShiftMACE, interaction_classes

        torch.manual_seed(0)
        energies = np.array(list(ENERGIES.values()))
        several = len(heads) > 1
        return ScaleShiftMACE(
            r_max=4.0, num_bessel=4, num_polynomial_cutoff=5, max_ell=2, num_interactions=2, correlation=2,
            interaction_cls=interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=interaction_classes["RealAgnosticInteractionBlock"],
            num_elements=len(ENERGIES), atomic_numbers=list(ENERGIES), hidden_irreps=o3.Irreps("8x0e + 8x1o"),
            MLP_irreps=o3.Irreps("4x0e"), gate=torch.nn.functional.silu, avg_num_neighbors=8.0,
            atomic_energies=np.stack([energies + n for n in range(len(heads))]) if several else energies,
            atomic_inter_scale=[1.3] * len(heads) if several else 1.3,
            atomic_inter_shift=[0.1] * len(heads) if several else 0.1, heads=list(heads) if several else None,
        )  # fmt: skip


@cache
def small_mace(heads: tuple[str, ...] = ("Default",)) -> str:
    """The path of its file, the same in all tests of a process."""
    path = Path(_directory.name) / f"{'_'.join(heads)}.model"
    torch.save(make_network(heads), path)
    return str(path)


def calculator() -> Any:
    """The calculator of the package, FP32."""
    with settings_kept(), quiet():
        from mace.calculators import MACECalculator

        return MACECalculator(models=[make_network()], device="cpu", default_dtype="float32")
