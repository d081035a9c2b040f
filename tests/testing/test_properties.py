"""Each property holds for sound force fields, and fails for one with that fault planted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from torch import Tensor, nn

from mlff_exp.models.graph import GraphModel
from mlff_exp.models.spec import Capabilities
from mlff_exp.structures.batch import AtomicBatch
from mlff_exp.testing import PROPERTIES, ForceFieldTests, check, markdown_table
from mlff_exp.testing.subject import known_structure
from tests.helpers.networks import OwnForces, TwoRanges, direct_forces
from tests.outside.package.outside_force_field.network import Pairs


class Faulty(Pairs):
    """A sound pair potential with one fault."""

    def __init__(self, fault: str) -> None:
        super().__init__(4.0, 4)
        self.fault = fault

    def forward(self, numbers: Tensor, system: Tensor, n_systems: int, edges: Any) -> Tensor:
        energies = super().forward(numbers, system, n_systems, edges)
        ((receivers, senders), vectors), *_ = edges
        distances = vectors.norm(dim=-1)
        inside = (distances < 4.0).to(vectors.dtype)
        fade = (1 - distances / 4.0).clamp(min=0) ** 3
        match self.fault:
            case "axis":  # one direction of space is special
                added = fade * vectors[:, 2] ** 2
            case "handed":  # the sign of a volume of three neighbours
                sums = [
                    torch.zeros(len(numbers), 3, dtype=vectors.dtype).index_add(
                        0, receivers, vectors * (fade * numbers[senders] ** power).unsqueeze(-1)
                    )
                    for power in range(3)
                ]
                return energies + 0.01 * torch.linalg.det(torch.stack(sums, dim=1))
            case "order":  # the row of an atom matters
                added = fade * (receivers % 3)
            case "mean":  # an energy of the mean over the atoms of a system
                sizes = torch.zeros(n_systems, dtype=energies.dtype).index_add(0, system, torch.ones_like(energies))
                return energies / sizes[system]
            case "step":
                added = 0.01 * inside
            case "kink":  # the energy is continuous and the force is not
                added = 0.01 * (1 - distances / 4.0).clamp(min=0)
            case "list":  # pairs of the list beyond the cutoff count
                added = torch.full_like(distances, 0.001)
            case "other system":  # the last system of a batch is felt by all
                return energies + 0.01 * energies[system == system[-2]].sum() * (system < n_systems - 1)
            case _:
                raise AssertionError(self.fault)
        return energies.index_add(0, receivers, added.to(energies.dtype))


class Placed(GraphModel):
    """Depends on absolute coordinates, which a network on edges never sees."""

    def forward(self, batch: AtomicBatch) -> Any:
        pull = 0.01 * (batch.positions.square().sum(dim=-1) * batch.is_atom)
        energy = super().forward(batch)
        assert isinstance(energy, Tensor)
        return energy + batch.per_system(pull).sum(dim=1)


class FeltByPadding(GraphModel):
    """Padding rows have energies of their own positions."""

    def forward(self, batch: AtomicBatch) -> Any:
        energy = super().forward(batch)
        assert isinstance(energy, Tensor)
        return energy + batch.per_system((batch.positions + 1).square().sum(dim=-1) * ~batch.is_atom).sum(dim=1)


class CellPull(GraphModel):
    """Its energy depends on the cell, but not through a gradient."""

    def forward(self, batch: AtomicBatch) -> Any:
        energy = super().forward(batch)
        assert isinstance(energy, Tensor)
        return energy + 0.01 * batch.volumes.detach()


def failing(results: Sequence[Any]) -> set[str]:
    return {result.name for result in results if result.holds is False}


def silent(_: str) -> None:
    """Print nothing."""


WATER = molecule("H2O")
SOUND: dict[str, Any] = {
    "one cutoff": lambda: Pairs(4.0, 4),
    "two cutoffs": TwoRanges,
    "own forces": OwnForces,
    "a loaded model": lambda: GraphModel(Pairs(3.0, 4)),
}


@pytest.mark.parametrize("name", SOUND)
def test_all_hold_for_a_sound_force_field(name: str) -> None:
    results = check(SOUND[name](), WATER, say=silent)
    assert [result.name for result in results] == list(PROPERTIES)
    assert failing(results) == set()
    assert {result.name for result in results if result.holds is None} == (
        {"stress"} if name == "own forces" else set()
    )


def test_all_hold_for_a_crystal() -> None:
    model = Pairs(4.0, 4)
    model.elements = {**model.elements, 6: -1030.0}
    assert failing(check(model, bulk("C", "diamond", a=3.57, cubic=True), say=silent)) == set()


PLANTED: dict[str, tuple[Any, set[str]]] = {
    "axis": (lambda: Faulty("axis"), {"rotation", "reflection"}),
    "handed": (lambda: Faulty("handed"), {"reflection"}),
    "order": (lambda: Faulty("order"), {"permutation"}),
    "mean": (lambda: Faulty("mean"), {"extensivity"}),
    "step": (lambda: Faulty("step"), {"smoothness"}),
    "kink": (lambda: Faulty("kink"), {"smoothness"}),
    "list": (lambda: Faulty("list"), {"skin"}),
    "other system": (lambda: Faulty("other system"), {"batch"}),
    "place": (lambda: Placed(Pairs(4.0, 4)), {"translation"}),
    "padding": (lambda: FeltByPadding(Pairs(4.0, 4)), {"padding"}),
    "cell": (lambda: CellPull(Pairs(4.0, 4)), {"stress"}),
    "direct forces": (direct_forces, {"forces"}),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_named(fault: str) -> None:
    make, fails = PLANTED[fault]
    tried = {*fails, "permutation"}  # one that holds, but for the order
    found = check(make(), molecule("CH3OH"), properties=tried, say=silent)
    assert failing(found) == fails
    assert all(result.value > 10 * result.limit for result in found if result.name in fails)


def test_every_property_has_a_fault_that_it_finds() -> None:
    assert {name for _, fails in PLANTED.values() for name in fails} == set(PROPERTIES)


def test_where_one_fails_the_transform_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    check(Faulty("axis"), WATER, properties=["rotation", "permutation"])
    rotation, permutation = capsys.readouterr().out.splitlines()
    assert rotation.startswith("rotation     FAILS")
    assert "turned by the matrix [[" in rotation
    assert permutation.startswith("permutation  holds")
    assert "order" not in permutation


def test_nan_does_not_hold() -> None:
    class Broken(Pairs):
        def forward(self, *arguments: Any) -> Tensor:
            return super().forward(*arguments) * math.nan

    assert "rotation" in failing(check(Broken(4.0, 4), WATER, properties=["rotation"], say=silent))


def test_the_force_field_is_not_changed() -> None:
    model = Pairs(4.0, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check(model, WATER, properties=["rotation"], say=silent)
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_an_unknown_element_and_no_force_field_are_refused() -> None:
    with pytest.raises(ValueError, match="was not trained on Xe"):
        check(Pairs(4.0, 4), Atoms("Xe2", [(0, 0, 0), (4, 0, 0)]))
    with pytest.raises(TypeError, match="is no GraphForceField"):
        check(nn.Linear(1, 1))


def test_it_finds_a_structure_of_elements_that_a_model_knows() -> None:
    model = GraphModel(Pairs(4.0, 4))
    assert set(known_structure(model).symbols) == {"C", "H", "O"}
    model.elements = ("Au", "Cu")
    cluster = known_structure(model)
    assert set(cluster.symbols) == {"Au", "Cu"}
    distances = cluster.get_all_distances()[np.triu_indices(len(cluster), 1)]
    assert distances.min() > 2.5


def test_a_model_without_cells_has_no_skin_and_no_stress() -> None:
    model = Pairs(4.0, 4)
    model.capabilities = Capabilities(periodic=False)  # type: ignore[assignment]
    results = {result.name: result for result in check(model, WATER, properties=["skin", "stress"], say=silent)}
    assert results["skin"].holds is None
    assert "no periodic systems" in results["skin"].words
    assert results["stress"].holds is None


def test_a_table_names_what_fails() -> None:
    lines = markdown_table({"`mine`": check(Faulty("step"), WATER, properties=["rotation", "smoothness"], say=silent)})
    assert lines[0] == "|  | rotation | smoothness |"
    assert lines[2].startswith("| `mine` | yes | **no**: 0.0")


class TestSuite(ForceFieldTests):
    """The public classes, as anyone would use them."""

    def force_field(self) -> nn.Module:
        return TwoRanges()

    def atoms(self) -> Atoms:
        return WATER


def test_the_classes_have_a_test_for_each_property() -> None:
    assert {name.removeprefix("test_") for name in dir(ForceFieldTests) if name.startswith("test_")} == set(PROPERTIES)


def test_a_class_fails_where_a_property_does() -> None:
    class Mine(ForceFieldTests):
        def force_field(self) -> nn.Module:
            return Faulty("axis")

        def atoms(self) -> Atoms:
            return WATER

    Mine().test_permutation()
    with pytest.raises(AssertionError, match="turned by the matrix"):
        Mine().test_rotation()
