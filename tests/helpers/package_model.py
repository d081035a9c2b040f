"""A model that has an ASE calculator of its own package, for tests of what is compared with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ase.build import molecule

from mlff_exp.engines.ase import EngineCalculator
from mlff_exp.engines.eager import EagerEngine
from mlff_exp.models.foreign.truth import Truth
from mlff_exp.models.graph import GraphModel
from mlff_exp.models.spec import ModelSpec
from tests.outside.package.outside_force_field.network import Pairs


@dataclass
class PackageModel:
    """Options of the model: it has none."""

    name: str = "package_model"


class SlowCalculator(EngineCalculator):
    """Waits for 20 ms before each call, and sets what packages set for a whole process."""

    def find_results(self, *arguments: Any) -> dict[str, Any]:
        time.sleep(0.02)
        torch.set_default_dtype(torch.float64)
        torch.set_float32_matmul_precision("high")
        return super().find_results(*arguments)


def make(options: PackageModel, trust: Sequence[str]) -> Pairs:
    return Pairs(4.0, 4)


def truth(options: PackageModel) -> Truth:
    def calculator(device: str, stress: bool) -> SlowCalculator:
        return SlowCalculator(EagerEngine(GraphModel(Pairs(4.0, 4)), "fp32", torch.device(device)))

    return Truth(calculator, molecule("H2O"), ("numpy",), energy_ev_per_atom=1e-4, force_ev_per_ang=1e-3)


SPEC = ModelSpec("package_model", PackageModel, "", f"{__name__}:make", truth=f"{__name__}:truth")
