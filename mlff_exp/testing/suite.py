"""The properties as pytest classes: inherit from one in a test of your own and give it your force field.

class TestMine(mlff_exp.testing.ForceFieldTests):
    def force_field(self):
        return MyNetwork()
"""

from __future__ import annotations

from functools import cached_property

from ase import Atoms
from torch import nn

from mlff_exp.models import ForceField
from mlff_exp.testing.checking import check_property
from mlff_exp.testing.subject import Subject, prepare


class PropertyTests:
    """The base of the classes: what is tried."""

    _subjects: dict[type, Subject] = {}  # noqa: RUF012 (shared by purpose: pytest makes an object for each test)

    def force_field(self) -> nn.Module | ForceField:
        """Return the force field: override this."""
        raise NotImplementedError(f"{type(self).__name__}.force_field has to return a force field")

    def atoms(self) -> Atoms | None:
        """Return the structure to try it on; None for a small molecule or a cluster of known elements."""
        return None

    @cached_property
    def subject(self) -> Subject:
        """The force field in FP64 and the structures; made once for a class."""
        kind = type(self)
        if kind not in self._subjects:
            self._subjects[kind] = prepare(self.force_field(), self.atoms())
        return self._subjects[kind]

    def assert_holds(self, name: str) -> None:
        """Fail if a property does not hold, and skip if it has no meaning."""
        import pytest

        result = check_property(self.subject, name)
        if result.holds is None:
            pytest.skip(result.words)
        assert result.holds, result.line()


class SymmetryTests(PropertyTests):
    """The energy does not depend on how a structure lies in space and how its atoms are numbered."""

    def test_rotation(self) -> None:
        """Forces turn with the structure."""
        self.assert_holds("rotation")

    def test_reflection(self) -> None:
        """Forces are mirrored with the structure."""
        self.assert_holds("reflection")

    def test_translation(self) -> None:
        """Energy and forces stay."""
        self.assert_holds("translation")

    def test_permutation(self) -> None:
        """Forces are renumbered with the atoms."""
        self.assert_holds("permutation")


class GradientTests(PropertyTests):
    """Energy, forces and stress belong together and are continuous."""

    def test_smoothness(self) -> None:
        """Nothing jumps where a pair crosses the cutoff."""
        self.assert_holds("smoothness")

    def test_forces(self) -> None:
        """Forces are minus the gradient of the energy."""
        self.assert_holds("forces")

    def test_stress(self) -> None:
        """The stress is the derivative of the energy by strain."""
        self.assert_holds("stress")


class BatchTests(PropertyTests):
    """What is beside a system changes nothing."""

    def test_extensivity(self) -> None:
        """Two copies have twice the energy."""
        self.assert_holds("extensivity")

    def test_padding(self) -> None:
        """Rows without atoms change nothing."""
        self.assert_holds("padding")

    def test_skin(self) -> None:
        """Pairs of the list beyond the cutoff change nothing."""
        self.assert_holds("skin")

    def test_batch(self) -> None:
        """A system in a batch is as by itself."""
        self.assert_holds("batch")


class ForceFieldTests(SymmetryTests, GradientTests, BatchTests):
    """All properties."""
