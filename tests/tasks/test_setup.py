"""What every task begins with."""

from __future__ import annotations

import pytest

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
