"""What a factory changes of the process is put back."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import pytest
import torch

from mlff_exp.config.errors import ConfigError
from mlff_exp.models.adapters.factory import TorchModel
from mlff_exp.models.embedded import Architecture
from mlff_exp.models.foreign.settings import settings_kept
from mlff_exp.models.loading import load_model
from mlff_exp.models.painn import PaiNN
from mlff_exp.models.predecessor import PredecessorPaiNN
from tests.conftest import REFERENCE_ENERGIES
from tests.helpers.process import settings_of_the_process
from tests.outside.package.outside_force_field.network import Pairs


def careless(fails: bool = False) -> Any:
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("high")
    torch.use_deterministic_algorithms(True)
    torch.set_grad_enabled(False)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"
    os.environ["PATH"] = ""
    if fails:
        raise ValueError("no weights")
    return Pairs(4.0, 4)


def test_a_factory_leaves_the_process_as_it_was() -> None:
    before = settings_of_the_process()
    load_model(TorchModel(factory=f"{__name__}:careless"), ["tests"])
    assert settings_of_the_process() == before
    with pytest.raises(ConfigError, match="no weights"):
        load_model(TorchModel(factory=f"{__name__}:careless", arguments={"fails": True}), ["tests"])
    assert settings_of_the_process() == before


def test_nothing_that_was_not_changed_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting deterministic algorithms imports the compiler, which takes seconds; so do normal numbers on ``meta``."""

    def imports_the_compiler(*_: object, **__: object) -> None:
        raise AssertionError("the compiler is imported")

    monkeypatch.setattr(torch, "use_deterministic_algorithms", imports_the_compiler)
    with settings_kept():
        pass
    monkeypatch.setattr(torch.nn.init, "normal_", imports_the_compiler)
    with torch.device("meta"):
        PaiNN(Architecture(), REFERENCE_ENERGIES)
        PredecessorPaiNN(8, 1, 4, 5.0, 10)
