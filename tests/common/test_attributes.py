"""An attribute has another value for a while."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mlff_exp.common.attributes import replace_attribute


class Base:
    word = "base"

    @staticmethod
    def said() -> str:
        return "said"


class Derived(Base):
    pass


def test_a_replaced_attribute_is_restored_after_the_block() -> None:
    before = vars(Base)["said"]

    @replace_attribute(Base, "said", lambda: "other")
    def stop() -> None:
        raise ValueError(Base.said())

    with pytest.raises(ValueError, match="other"):
        stop()
    assert vars(Base)["said"] is before


def test_an_inherited_attribute_is_inherited_again() -> None:
    with replace_attribute(Derived, "word", "own"):
        assert (Derived.word, Base.word) == ("own", "base")
    assert "word" not in vars(Derived)


def test_a_missing_attribute_can_not_be_replaced() -> None:
    with pytest.raises(AttributeError), replace_attribute(SimpleNamespace(), "word", 1):
        pass
