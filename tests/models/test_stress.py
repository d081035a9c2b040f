"""The stress that engines give with energy and forces: a derivative, a tensor, and nothing where it has no meaning."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.fd import calculate_numerical_stress
from ase.stress import voigt_6_to_full_3x3_stress
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mlff_exp.engines import tracing
from mlff_exp.engines.ase import EngineCalculator
from mlff_exp.engines.compiled import CompiledEngine
from mlff_exp.engines.factory import make_engine
from mlff_exp.engines.prediction import EngineError, Prediction
from mlff_exp.engines.registry import ENGINES, engine_options
from mlff_exp.models.graph import GraphModel
from mlff_exp.structures.batch import AtomicBatch, collate
from tests.conftest import make_random_model, rattled
from tests.helpers.engines import GPU_ENGINES
from tests.helpers.networks import TwoRanges, crystal, with_more_columns
from tests.helpers.predictions import moved
from tests.helpers.shapes import assert_prediction
from tests.outside.package.outside_force_field.network import Pairs

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MODELS: dict[str, Any] = {
    "painn": lambda: make_random_model(8, 1),
    "one cutoff": lambda: GraphModel(Pairs(4.0, 4)),
    "two cutoffs": lambda: GraphModel(TwoRanges()),
}
models = pytest.mark.parametrize("model", MODELS)
some = settings(max_examples=5, deadline=None)
seeds = st.integers(0, 2**32 - 1)
EXACT = 1e-9  # eV/Å³; FP64 rounds sums of stresses up to 100


@cache
def engine_of(model: str, precision: Any = "fp64", *, stress: bool = True) -> Any:
    return make_engine(MODELS[model](), "eager", precision, CPU, stress=stress)


def predict(engine: Any, batch: AtomicBatch) -> Prediction:
    prediction: Prediction = engine(batch)
    assert_prediction(prediction, batch)
    return prediction


def stress_of(engine: Any, batch: AtomicBatch) -> np.ndarray:
    """[n_systems, 3, 3] eV/Å³."""
    stress = predict(engine, batch).stress
    assert stress is not None
    return stress.cpu().numpy()


@models
def test_it_is_the_derivative_of_the_energy_under_strain(model: str) -> None:
    engine, atoms = engine_of(model), crystal(1)
    stress = stress_of(engine, collate([atoms], engine.cutoff))[0]
    atoms.calc = EngineCalculator(engine)
    expected = voigt_6_to_full_3x3_stress(calculate_numerical_stress(atoms, eps=1e-4, force_consistent=False))
    assert np.abs(stress).max() > 0.01
    np.testing.assert_allclose(stress, expected, rtol=1e-5, atol=1e-6 * np.abs(stress).max())


@models
@some
@given(seed=seeds, mirrored=st.booleans())
def test_it_is_symmetric_and_turns_as_a_tensor(model: str, seed: int, mirrored: bool) -> None:
    engine, atoms, rng = engine_of(model), crystal(seed), np.random.default_rng(seed)
    turn, order = Rotation.random(rng=rng).as_matrix() * (-1 if mirrored else 1), rng.permutation(len(atoms))
    other = atoms[order]
    # Another origin, and another image of each atom.
    images = rng.integers(-2, 3, size=(len(atoms), 3)) @ atoms.cell[:]
    other.positions = (other.positions + images) @ turn.T + rng.normal(scale=10, size=3)
    other.set_cell(atoms.cell @ turn.T)
    stress, found = (stress_of(engine, collate([each], engine.cutoff))[0] for each in (atoms, other))
    assert np.array_equal(stress, stress.T)
    np.testing.assert_allclose(found, turn @ stress @ turn.T, rtol=1e-9, atol=EXACT)


@models
@some
@given(seed=seeds)
def test_it_is_the_same_for_several_cells(model: str, seed: int) -> None:
    engine, atoms = engine_of(model), crystal(seed, 2)
    one, several = (stress_of(engine, collate([each], engine.cutoff))[0] for each in (atoms, atoms.repeat((2, 1, 1))))
    np.testing.assert_allclose(several, one, rtol=1e-9, atol=EXACT)


@models
@some
@given(seed=seeds, skin=st.sampled_from([0.0, 0.3, 1.5]), columns=st.integers(0, 9))
def test_batch_padding_and_skin_change_nothing(model: str, seed: int, skin: float, columns: int) -> None:
    engine, systems = engine_of(model), [crystal(seed), crystal(seed + 1, 2), crystal(seed + 2, 1)]
    padded = collate(systems, engine.cutoff, skin=skin, bucketed=True)
    assert padded.n_systems == 4
    together = stress_of(engine, with_more_columns(padded, columns))
    for index, atoms in enumerate(systems):
        alone = stress_of(engine, collate([atoms], engine.cutoff))[0]
        np.testing.assert_allclose(together[index], alone, rtol=1e-9, atol=EXACT)
    assert (together[3] == 0).all()  # a system without atoms


@models
@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16_autocast"])
def test_energies_and_forces_keep_their_bits(model: str, precision: str) -> None:
    systems = [crystal(1), crystal(2, 3)]
    batch = collate(systems, 5.0, skin=0.5)
    found, expected = (predict(engine_of(model, precision, stress=asked), batch) for asked in (True, False))
    assert torch.equal(found.energy, expected.energy)
    assert torch.equal(found.forces, expected.forces)
    assert expected.stress is None
    exact = stress_of(engine_of(model), batch)
    assert found.stress is not None
    off = 1e-15 if precision == "fp64" else 1e-4 if precision == "fp32" else 0.1
    assert np.abs(found.stress.numpy() - exact).max() <= off * np.abs(exact).max()


@models
def test_what_is_not_periodic_in_all_directions_has_none(model: str) -> None:
    engine, plain, slab = engine_of(model), engine_of(model, stress=False), crystal(1)
    slab.pbc = (True, True, False)
    for systems in ([slab], [rattled("H2O", 0)], [crystal(1), slab], [rattled("H2O", 0), crystal(1)]):
        batch = collate(systems, engine.cutoff)
        assert not batch.fully_periodic
        found, expected = predict(engine, batch), predict(plain, batch)
        assert found.stress is None
        assert torch.equal(found.forces, expected.forces)


def test_molecules_are_traced_as_without_stress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Node by node; and a crystal's graph grows by the stress alone: there is no second pass backward."""

    class Traced(Exception):  # noqa: N818 (no error: nothing is compiled)
        def __init__(self, nodes: list[str]) -> None:
            self.nodes = nodes

    def stop(*arguments: Any) -> None:
        raise Traced([node.name for node in trace(*arguments).graph.nodes])

    trace = tracing.trace
    monkeypatch.setattr(tracing, "trace", stop)

    def nodes(atoms: Atoms, stress: bool) -> list[str]:
        with pytest.raises(Traced) as traced:
            CompiledEngine(MODELS["two cutoffs"](), "fp64", CPU, "default", stress=stress)(collate([atoms], 5.0))
        return traced.value.nodes

    water = rattled("H2O", 0)
    assert nodes(water, stress=True) == nodes(water, stress=False)
    without, with_ = (len(nodes(crystal(1), stress)) for stress in (False, True))
    assert 20 < with_ - without < 60 < without / 2


@pytest.mark.usefixtures("traced_but_not_compiled")  # compiled for real in tests/engines
@pytest.mark.parametrize("model", ["one cutoff", "two cutoffs"])
def test_traced_it_is_the_same(model: str) -> None:
    batch = collate([crystal(1), crystal(2, 3), crystal(3, 2)], 5.0, skin=0.5)
    slab = crystal(1)
    slab.pbc = (True, True, False)
    engine = make_engine(MODELS[model](), "compile", "fp64", CPU, stress=True)
    for one in (batch, moved(batch), collate([slab], 5.0), batch):
        found, expected = predict(engine, one), predict(engine_of(model), one)
        np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=1e-12)
        assert (found.stress is None) == (expected.stress is None)
        if found.stress is not None and expected.stress is not None:
            np.testing.assert_allclose(found.stress, expected.stress, rtol=1e-12, atol=1e-14)
    assert engine.compiled_graphs == 2


def test_an_engine_that_gives_none_is_refused() -> None:
    assert [spec.name for spec in ENGINES if spec.stress] == ["eager", "compile", "cuda_graph"]
    with pytest.raises(EngineError, match="engine 'fused' gives no stress: use one of eager, compile, cuda_graph"):
        make_engine(MODELS["painn"](), "fused", "fp32", CUDA, stress=True)


@pytest.mark.gpu
@pytest.mark.usefixtures("few_autotuning_choices")
@pytest.mark.parametrize(("name", "mode"), GPU_ENGINES)
@pytest.mark.parametrize("model", ["painn", "two cutoffs"])
@pytest.mark.parametrize("precision", ["fp64", "fp32", "fp16_autocast"])
def test_on_a_gpu_it_is_the_same(model: str, name: str, mode: str, precision: Any) -> None:
    batch = collate([crystal(2), crystal(3, 1)], 5.0, skin=0.5)
    engine = make_engine(MODELS[model](), name, precision, CUDA, engine_options(name, mode=mode), stress=True)
    off = {"fp64": 1e-12, "fp32": 1e-4}.get(precision, 0.05)
    for one in (batch, moved(batch), batch):  # a replay returns copies
        found, expected = stress_of(engine, one.to(CUDA)), stress_of(engine_of(model), one)
        np.testing.assert_allclose(found, expected, rtol=0, atol=off * np.abs(expected).max())
