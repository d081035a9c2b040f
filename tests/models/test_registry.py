"""The kinds of force fields: what a spec says, and what is made of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlff_exp.common.registry import load_object
from mlff_exp.config.errors import ConfigError
from mlff_exp.models.adapters.factory import TorchModel
from mlff_exp.models.graph import GraphModel
from mlff_exp.models.loading import load_model
from mlff_exp.models.registry import MODELS
from mlff_exp.models.spec import Capabilities, ModelSpec
from mlff_exp.tasks.machine import on_this_machine
from mlff_exp.tasks.setup import described_systems, prepare_model
from tests.helpers.here import configured

FACTORY = f"model.factory={__name__}:limited"


class Nothing(nn.Module):
    """Atoms without interactions."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.cutoffs, self.elements = (3.0,), None
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, numbers: Tensor, system: Tensor, n_systems: int, edges: Any) -> Tensor:
        ((index, vectors),) = edges
        return torch.zeros_like(vectors[: len(numbers), 0]).index_add(0, index[0], 0.0 * vectors.square().sum(-1))


def limited() -> Nothing:
    return Nothing(capabilities=Capabilities(periodic=False, precisions=("fp64", "fp32"), traceable=False))


def no_number() -> int:
    return 1


@dataclass
class Planted:
    """Options of a kind that a test adds."""

    name: str = "planted"


def fails(options: Planted, trust: Sequence[str]) -> Any:
    raise OSError("weights.bin is not there")


@pytest.mark.parametrize("spec", list(MODELS), ids=lambda spec: spec.name)
def test_a_spec_fits_its_options_and_its_factory_exists(spec: ModelSpec) -> None:
    defaults = {item.name: item.default for item in fields(spec.options)}
    assert defaults["name"] == spec.name
    assert spec.summary
    assert callable(load_object(spec.factory))
    assert spec.code is None or spec.code.partition(".")[0] in defaults


def test_the_registry_imports_no_pytorch() -> None:
    code = "import sys; from mlff_exp.models import MODELS; MODELS.names(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("precision=bf16_autocast",), "precision=bf16_autocast: model=torch works at one of: fp64, fp32"),
        (("engine=compile",), "engine=compile compiles, and model=torch can't be traced; use one of: eager"),
    ],
)
def test_what_a_network_cannot_do_is_refused_before_any_work(words: Sequence[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare_model(configured("model=torch", FACTORY, "trust=[tests]", "device=cpu", "engine=eager", *words))


def test_a_periodic_system_is_refused_where_the_network_takes_none() -> None:
    config = configured("model=torch", FACTORY, "trust=[tests]", "device=cpu", "engine=eager", "system=water_box")
    with pytest.raises(ConfigError, match="the model takes no periodic systems"):
        described_systems(config, prepare_model(config))


def test_what_a_spec_says_is_known_before_the_model_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    student = MODELS["student"]
    narrow = ModelSpec("student", student.options, "", student.factory, capabilities=Capabilities(precisions=("fp32",)))
    monkeypatch.setitem(MODELS._specs, "student", narrow)
    with pytest.raises(ConfigError, match="precision=fp64: model=student works at one of: fp32"):
        on_this_machine(configured("device=cpu", "engine=eager", "precision=fp64"))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"capabilities": Capabilities(charged=True)}, "is given no charges"),
        ({"capabilities": {"periodic": False}}, r"must be mlff_exp\.models\.Capabilities"),
        ({"cutoffs": ()}, r"cutoffs=\(\) must be one or more lengths"),
        ({"elements": {0: 1.0}}, "must be atomic numbers"),
        ({"elements": {1: float("nan")}}, "is NaN or infinite"),
    ],
)
def test_a_network_that_says_nonsense_is_refused(attributes: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        GraphModel(Nothing(**attributes))


def test_a_factory_that_gives_no_force_field_is_named() -> None:
    with pytest.raises(ConfigError, match=rf"model\.factory={__name__}:no_number returned int; expected a torch"):
        load_model(TorchModel(factory=f"{__name__}:no_number"), ["tests"])


def test_what_a_factory_raises_becomes_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODELS, "_specs", dict(MODELS._specs))
    MODELS.register(ModelSpec("planted", Planted, "", f"{__name__}:fails"))
    with pytest.raises(ConfigError, match=r"model=planted: OSError: weights\.bin is not there"):
        load_model(Planted(), [])
