"""Published weights of other packages, where these are installed: their own calculators, and the symmetries of space.

`make env-sevennet`, `make env-so3lr` and `make env-mace` make environments in which these tests run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.stress import full_3x3_to_voigt_6_stress
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from mlff_exp.common.registry import load_object
from mlff_exp.config.errors import ConfigError
from mlff_exp.engines.eager import energy_and_forces
from mlff_exp.engines.edge_sums import replace_scatters
from mlff_exp.engines.factory import make_engine
from mlff_exp.engines.tracing import trace
from mlff_exp.models.adapters.mace import MACEModel
from mlff_exp.models.adapters.sevennet import SevenNetModel
from mlff_exp.models.adapters.so3lr import SO3LRModel
from mlff_exp.models.foreign.truth import UntrueError, check_truth
from mlff_exp.models.graph import GraphModel
from mlff_exp.models.loading import LoadedModel, load_model
from mlff_exp.models.registry import MODELS
from mlff_exp.structures.batch import collate
from tests.helpers.networks import with_more_columns
from tests.helpers.predictions import moved, predicted
from tests.helpers.process import settings_of_the_process
from tests.helpers.small_mace import ENERGIES, make_network, small_mace

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Family:
    """A kind of force field and what to try it with.

    Attributes:
        make_options: makes the options of the model.
        package: that it needs.
        cell: a periodic structure of elements that it knows.
        energy_ev_per_atom: difference from the calculator that FP32 explains.
        force_ev_per_ang: the same of a force.
        stress_ev_per_ang3: the same of a component of the stress.
        calculator: arguments of the package's calculator with which it gives stress.
        mirrored_ev: least and greatest difference between a cell and its mirror image. SevenNet's published weights are
            of networks that know turns and no reflections.
        trust: what the command line says.
    """

    make_options: Callable[[], Any]
    package: str
    cell: Atoms
    energy_ev_per_atom: float
    force_ev_per_ang: float
    stress_ev_per_ang3: float
    calculator: tuple[str, dict[str, Any]]
    mirrored_ev: tuple[float, float] = (0.0, 1e-6)
    trust: tuple[str, ...] = ()

    @cached_property
    def options(self) -> Any:
        return self.make_options()


def rattled(atoms: Atoms, seed: int = 0) -> Atoms:
    atoms.positions += np.random.default_rng(seed).normal(scale=0.05, size=atoms.positions.shape)
    return atoms


def two_waters() -> Atoms:
    one, other = molecule("H2O"), molecule("H2O")
    other.positions += (2.9, 0.4, 0.3)
    both = one + other
    both.set_cell([6.0, 5.0, 4.5])
    both.pbc = True
    return both


SILICON = rattled(bulk("Si", "diamond", a=5.43, cubic=True))
SEVENNET = ("sevenn.calculator:SevenNetCalculator", {"device": "cpu"})
FAMILIES = {
    "7net-0": Family(SevenNetModel, "sevenn", SILICON, 5e-6, 5e-5, 1e-6, SEVENNET, (1e-5, 1e-2)),
    "7net-l3i5": Family(
        lambda: SevenNetModel(checkpoint="7net-l3i5"), "sevenn", SILICON, 5e-6, 5e-5, 1e-6, SEVENNET, (1e-5, 1e-2)
    ),
    "so3lr": Family(
        SO3LRModel, "so3krates_torch", rattled(two_waters()), 1e-4, 1e-4, 1e-6,
        ("so3krates_torch.calculator.so3:SO3LRCalculator", {"device": "cpu", "compute_stress": True}),
    ),
    # The calculator adds energies of 2,000 eV in FP32.
    "mace": Family(
        lambda: MACEModel(checkpoint=small_mace()), "mace", rattled(two_waters()), 1e-3, 5e-5, 1e-6,
        ("tests.helpers.small_mace:calculator", {}), trust=("mace",),
    ),
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("default")  # packages warn of what is older than they know
every = pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed"))
    for name, package in ((name, one.package) for name, one in FAMILIES.items())
])  # fmt: skip
# What both take: a molecule with a cell beside it.
MIXED = [molecule("CH3OH"), two_waters()]


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@cache
def loaded(name: str) -> LoadedModel:
    return load_model(FAMILIES[name].options, FAMILIES[name].trust)


@cache
def engine_of(name: str, precision: Any = "fp64") -> Any:
    return make_engine(loaded(name).model, "eager", precision, CPU, stress=True)


@every
def test_it_leaves_the_process_as_it_was(name: str) -> None:
    import_module(FAMILIES[name].package)
    before = settings_of_the_process()
    load_model(FAMILIES[name].options, FAMILIES[name].trust)
    assert settings_of_the_process() == before
    for precision in ("fp64", "fp32"):
        engine_of(name, precision)(collate([molecule("H2O")], engine_of(name).cutoff))
        assert settings_of_the_process() == before


@every
def test_it_computes_what_the_calculator_of_its_package_does(name: str) -> None:
    """Energy, forces and stress, in FP32; and FP64 is near."""
    family = FAMILIES[name]
    path, arguments = family.calculator
    if name == "7net-l3i5":
        arguments = {**arguments, "model": name}
    calculator = load_object(path)(**arguments)
    for atoms in (rattled(molecule("C6H6")), family.cell):
        calculator.calculate(atoms, ["energy", "forces", "stress"])
        expected, batch = calculator.results, collate([atoms], engine_of(name).cutoff)
        for precision in ("fp32", "fp64"):
            energy, forces = predicted(engine_of(name, precision), batch)
            assert abs(energy[0] - expected["energy"]) / len(atoms) < family.energy_ev_per_atom
            np.testing.assert_allclose(
                forces[0][: len(atoms)], expected["forces"], rtol=0, atol=family.force_ev_per_ang
            )
            stress = engine_of(name, precision)(batch).stress
            assert (stress is not None) == atoms.pbc.all()
            if stress is not None:
                found = full_3x3_to_voigt_6_stress(stress[0].numpy())
                np.testing.assert_allclose(found, expected["stress"], rtol=0, atol=family.stress_ev_per_ang3)


class Spoilt(nn.Module):
    """A network with a mistake of the kind that an adapter makes."""

    def __init__(self, network: Any, mistake: str) -> None:
        super().__init__()
        self.network, self.mistake, self.cutoffs = network, mistake, network.cutoffs
        self.elements = {number: 0.0 if mistake == "shift" else e for number, e in network.elements.items()}

    def forward(self, numbers: Tensor, system: Tensor, n_systems: int, edges: Any) -> Tensor:
        if self.mistake == "direction":
            edges = [
                (index, vectors * torch.tensor([1.0, 1.0, -1.0 if n == 0 else 1.0]))
                for n, (index, vectors) in enumerate(edges)
            ]
            edges = [(index, torch.roll(vectors, 1, 0)) for index, vectors in edges]
        energies: Tensor = self.network(numbers, system, n_systems, edges)
        return energies * {"sign": -1.0, "unit": 27.211386}.get(self.mistake, 1.0)


@every
@pytest.mark.parametrize("mistake", ["sign", "unit", "shift", "direction"])
def test_a_spoilt_adapter_does_not_run(name: str, mistake: str) -> None:
    model = loaded(name).model
    assert isinstance(model, GraphModel)
    spec = MODELS[FAMILIES[name].options.name]
    truth = load_object(str(spec.truth))(FAMILIES[name].options)
    with pytest.raises(UntrueError, match="it does not compute what the calculator of"):
        check_truth(GraphModel(Spoilt(model.network, mistake)), mistake, truth)


@every
@pytest.mark.parametrize(("precision", "error"), [("fp16_autocast", 4e-3), ("bf16_autocast", 4e-2)])
def test_autocast_costs_what_half_precision_rounds(name: str, precision: str, error: float) -> None:
    if precision not in loaded(name).capabilities.precisions:
        pytest.skip(f"{name} has no {precision}")
    batch = collate([rattled(molecule("C6H6"))], engine_of(name).cutoff)
    energy, forces = predicted(engine_of(name, precision), batch)
    expected = predicted(engine_of(name), batch)
    assert abs(energy - expected[0]) < 0.01 * 12
    assert 0 < np.linalg.norm(forces - expected[1]) < error * np.linalg.norm(expected[1])


@every
@pytest.mark.parametrize("precision", ["fp64", "fp32"])
def test_padding_and_skin_and_the_batch_change_nothing(name: str, precision: str) -> None:
    engine = engine_of(name, precision)
    energy, force = (1e-9, 1e-9) if precision == "fp64" else (2e-4, 2e-4)
    padded = collate(MIXED, engine.cutoff, near=engine.shorter_cutoffs, skin=0.7, n_slots=9)
    padded = with_more_columns(padded, 5)
    together = predicted(engine, padded)
    assert not together[1][0, len(MIXED[0]) :].any()  # exactly nothing on padding
    for at, atoms in enumerate(MIXED):
        alone = predicted(engine, collate([atoms], engine.cutoff))
        np.testing.assert_allclose(together[0][at], alone[0][0], rtol=0, atol=energy)
        np.testing.assert_allclose(together[1][at, : len(atoms)], alone[1][0, : len(atoms)], rtol=0, atol=force)


def turned(atoms: Atoms, sign: int) -> tuple[Atoms, np.ndarray, np.ndarray]:
    """The same structure turned, also mirrored if the sign is -1, moved and renumbered; the turn and the order."""
    rng = np.random.default_rng(1)
    turn, order = sign * Rotation.random(rng=rng).as_matrix(), rng.permutation(len(atoms))
    other = atoms[order]
    other.positions = other.positions @ turn.T + rng.normal(size=3)
    other.set_cell(atoms.cell @ turn.T)
    return other, turn, order


@every
def test_turned_moved_and_renumbered_it_is_the_same(name: str) -> None:
    engine, atoms = engine_of(name), FAMILIES[name].cell
    other, turn, order = turned(atoms, 1)
    energy, forces = predicted(engine, collate([atoms], engine.cutoff))
    found = predicted(engine, collate([other], engine.cutoff))
    np.testing.assert_allclose(found[0], energy, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[1][0], forces[0][order] @ turn.T, rtol=0, atol=1e-6)


@every
def test_whether_a_mirror_image_is_the_same_is_known(name: str) -> None:
    engine, atoms = engine_of(name), FAMILIES[name].cell
    one, other = (engine(collate([each], engine.cutoff)).energy for each in (atoms, turned(atoms, -1)[0]))
    least, greatest = FAMILIES[name].mirrored_ev
    assert least <= abs(float(one - other)) <= greatest


@every
def test_two_cells_have_twice_the_energy(name: str) -> None:
    engine, atoms = engine_of(name), FAMILIES[name].cell
    energy, forces = predicted(engine, collate([atoms], engine.cutoff))
    twice, both = predicted(engine, collate([atoms.repeat((2, 1, 1))], engine.cutoff))
    np.testing.assert_allclose(twice, 2 * energy, rtol=0, atol=1e-8)
    np.testing.assert_allclose(both[0], np.concatenate([forces[0], forces[0]]), rtol=0, atol=1e-8)


@every
def test_forces_and_stress_are_the_derivatives_of_the_energy(name: str) -> None:
    engine, atoms, step = engine_of(name), FAMILIES[name].cell, 1e-5  # SevenNet's envelope has an edge at 4.5 Å
    rng = np.random.default_rng(2)
    direction, strain = rng.normal(size=atoms.positions.shape), rng.normal(size=(3, 3))
    strain = strain + strain.T
    batch = collate([atoms], engine.cutoff)

    def energy(positions: np.ndarray, cell: np.ndarray) -> float:
        return float(engine(collate([Atoms(atoms.numbers, positions, cell=cell, pbc=True)], engine.cutoff)).energy)

    _, forces = predicted(engine, batch)
    ahead, behind = (energy(atoms.positions + sign * step * direction, atoms.cell[:]) for sign in (1, -1))
    np.testing.assert_allclose((ahead - behind) / (2 * step), -(forces[0] * direction).sum(), rtol=1e-5, atol=1e-5)
    stress = engine(batch).stress[0].numpy()
    sheared = (np.eye(3) + sign * step * strain for sign in (1, -1))
    ahead, behind = (energy(atoms.positions @ each, atoms.cell @ each) for each in sheared)
    np.testing.assert_allclose(
        (ahead - behind) / (2 * step), (stress * strain).sum() * atoms.get_volume(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.slow
@every
def test_its_graph_computes_the_same_at_other_positions(name: str) -> None:
    engine = engine_of(name, "fp32")
    batch = collate([molecule("H2O")], engine.cutoff, n_slots=4)

    def function(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return energy_and_forces(engine.model, batch.with_tensors(*tensors), "fp32")

    graph = trace(function, batch.tensors())
    for one in (batch, moved(batch)):
        with torch.no_grad():
            found = graph(*one.tensors())
        expected = engine(one)
        assert torch.equal(found[0], expected.energy)
        assert torch.equal(found[1], expected.forces)


@pytest.mark.slow
@every
def test_its_graph_adds_nothing_at_an_index(name: str) -> None:
    engine = engine_of(name, "fp64")
    batch = collate([two_waters()], engine.cutoff, near=engine.shorter_cutoffs, skin=0.5)
    assert len(batch.near_columns) == len(engine.shorter_cutoffs)

    def function(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return energy_and_forces(engine.model, batch.with_tensors(*tensors), "fp64")

    graph = trace(function, batch.tensors())
    with torch.no_grad():
        expected = graph(*batch.tensors())
        assert replace_scatters(graph, batch) == 0
        found = graph(*batch.tensors())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@every
def test_an_element_that_it_was_not_trained_on_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"was not trained on (Og|Po)"):
        loaded(name).model.check_elements(["H", "Po" if name.startswith("7net") else "Og"])


@pytest.mark.skipif(find_spec("sevenn") is None, reason="sevenn is not installed")
class TestCheckpointsOfSevenNet:
    """Files of users are read without unpickling."""

    def test_a_copy_by_its_path_is_the_same_force_field(self, tmp_path: Path) -> None:
        from sevenn import _const

        copy = tmp_path / "mine.pth"
        copy.write_bytes(Path(_const.SEVENNET_0_11Jul2024).read_bytes())
        assert load_model(SevenNetModel(checkpoint=str(copy)), []).weights_sha256 == loaded("7net-0").weights_sha256

    def test_code_in_a_file_is_not_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Evil:
            def __reduce__(self) -> Any:
                return (Path.touch, (tmp_path / "ran",))

        torch.save({"config": Evil(), "model_state_dict": {}}, tmp_path / "evil.pth")
        with pytest.raises(ConfigError, match=r"evil\.pth is no checkpoint of SevenNet: UnpicklingError"):
            load_model(SevenNetModel(checkpoint=str(tmp_path / "evil.pth")), [])
        monkeypatch.chdir(tmp_path)  # a name that ships is never a file
        (tmp_path / "evil.pth").rename("7net-0")
        assert load_model(SevenNetModel(), []).weights_sha256 == loaded("7net-0").weights_sha256
        assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(find_spec("mace") is None, reason="mace is not installed")
class TestFilesOfMACE:
    """Files of users run code, so that the command line has to trust them."""

    def test_energies_of_isolated_atoms_are_added_outside(self) -> None:
        model = loaded("mace").model
        assert isinstance(model, GraphModel)
        assert {number: float(model.reference_energies[number]) for number in ENERGIES} == ENERGIES
        assert not model.network.net.atomic_energies_fn.atomic_energies.any()  # type: ignore[union-attr, operator]

    @pytest.mark.parametrize(("head", "shift"), [(None, 0.0), ("Default", 0.0), ("other", 1.0)])
    def test_a_head_is_chosen(self, head: str | None, shift: float) -> None:
        path = small_mace(("Default", "other"))
        model = load_model(MACEModel(checkpoint=path, head=head), ["mace"]).model
        assert isinstance(model, GraphModel)
        assert float(model.reference_energies[8]) == ENERGIES[8] + shift

    @pytest.mark.parametrize(
        ("heads", "head", "message"),
        [
            (("one", "two"), None, "it has several heads: give model.head, one of one, two"),
            (("one", "two"), "three", "model.head='three' is not one of: one, two"),
        ],
    )
    def test_no_head_is_guessed(self, heads: tuple[str, ...], head: str | None, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            load_model(MACEModel(checkpoint=small_mace(heads), head=head), ["mace"])

    def test_what_is_no_network_of_energies_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "other.model"
        for content, message in (
            (torch.nn.Linear(1, 1), "it holds a Linear: only MACE and ScaleShiftMACE"),
            (embedded(), "it needs charge of a system"),
        ):
            torch.save(content, file)
            with pytest.raises(ConfigError, match=message):
                load_model(MACEModel(checkpoint=str(file)), ["mace"])
        file.write_bytes(b"no file of PyTorch")
        with pytest.raises(ConfigError, match=r"other\.model is no model of MACE: UnpicklingError"):
            load_model(MACEModel(checkpoint=str(file)), ["mace"])


def embedded() -> Any:
    """A network that embeds the charge of a system."""
    network = make_network()
    network.joint_embedding, network.embedding_specs = nn.Identity(), {"charge": {}}
    return network


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("trust", [[], ["another"]])
def test_a_file_of_mace_is_not_run_without_trust(trust: list[str], tmp_path: Path) -> None:
    torch.save(Evil(tmp_path / "ran"), tmp_path / "evil.model")
    with pytest.raises(ConfigError, match=r"evil\.model: a file of MACE is a pickle, .* say trust=\[mace\]"):
        load_model(MACEModel(checkpoint=str(tmp_path / "evil.model")), trust)
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_mace_has_to_be_a_file() -> None:
    with pytest.raises(ConfigError, match=r"model\.checkpoint='nowhere\.model' is no file"):
        MACEModel(checkpoint="nowhere.model")
