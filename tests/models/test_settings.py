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
from mlff_exp.models.loading import load_model
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
