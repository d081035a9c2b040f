"""What every task begins with."""

from __future__ import annotations

import pytest

from mlff_exp.config.errors import ConfigError
from mlff_exp.tasks.setup import prepare_model
from tests.helpers.here import configured


def test_a_calculator_may_be_named_as_in_earlier_versions() -> None:
    pytest.importorskip("tblite")
    earlier = configured(
        "model=ase", "device=cpu", "model.calculator._target_=mlff_exp.labelling.teacher_calculator"
    )  # fmt: skip
    with pytest.warns(FutureWarning, match=r"0\.3\.0 will refuse: write mlff_exp\.distill\.teacher_calculator"):
        moved = prepare_model(earlier)
    assert moved.engine.name == prepare_model(configured("model=ase", "device=cpu")).engine.name == "ase/TBLite"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("method=/etc/passwd", "Method '/etc/passwd' is not available"),
        ("method=GFN9", "Method 'GFN9' is not available"),
        ("+model.calculator.guess=foo", "argument 'foo'"),
        ("+model.calculator.accuracy=x", "must be real number, not str"),
        ("+model.calculator.max_iterations=-1", "not converged"),
    ],
)
def test_a_wrong_word_for_a_calculator_is_refused_before_any_work(word: str, message: str) -> None:
    pytest.importorskip("tblite")
    target = "model.calculator._target_=tblite.ase.TBLite"
    setting = word if word.startswith("+") else f"+model.calculator.{word}"
    with pytest.raises(
        ConfigError, match=f"model.calculator: TBLite can't evaluate H2 with these arguments: .*{message}"
    ):
        prepare_model(configured("model=ase", "device=cpu", target, setting))
