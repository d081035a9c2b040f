"""The contenders: for each a function that prepares it for molecular dynamics from a common start.

A missing package raises `ImportError` in these functions and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from torch import Tensor

from mlff_exp.calculator import StudentForceFieldCalculator
from mlff_exp.config import CompileMode, Precision
from mlff_exp.distill import teacher_calculator
from mlff_exp.dynamics import Dynamics
from mlff_exp.engines import EagerEngine, Engine, ForceField, Prediction, make_engine
from mlff_exp.models import Checkpoint
from mlff_exp.structures import AtomicBatch, collate

# A model with random weights has no bonds: at the common timestep its atoms would leave the cutoff, and the work
# would shrink. The cost of a step does not depend on its length.
RANDOM_WEIGHTS_TIMESTEP = 1e-3


@dataclass(frozen=True)
class Work:
    """The work of every contender: steps of velocity Verlet at constant energy, all systems in one batch.

    Attributes:
        systems: with momenta and without calculators; all of the same composition.
        checkpoint: our weights.
        device: device of the models.
        precision: precision of all models with our weights.
        engine: our engine.
        timestep_fs: timestep, fs.
        steps_per_call: steps that are timed as one call.
    """

    systems: Sequence[Atoms]
    checkpoint: Checkpoint
    device: torch.device
    precision: Precision
    engine: str
    timestep_fs: float
    steps_per_call: int

    def eager(self) -> EagerEngine:
        """Make the eager engine with our weights."""
        return cast(EagerEngine, make_engine(self.checkpoint.model, "eager", self.precision, self.device))

    def velocities(self) -> Tensor:
        """Return the initial velocities, [n_atoms, 3] ASE units."""
        return torch.from_numpy(np.concatenate([atoms.get_velocities() for atoms in self.systems])).to(self.device)


@dataclass(frozen=True)
class Running:
    """A started contender.

    Attributes:
        call: does ``steps_per_call`` steps.
        positions: returns the present positions, [n_atoms, 3] Å.
        forces: returns the forces there, [n_atoms, 3] eV/Å.
    """

    call: Callable[[], object]
    positions: Callable[[], Any]
    forces: Callable[[], Any]


@dataclass(frozen=True)
class Contender:
    """A contender.

    Attributes:
        what: description for the table.
        package: the distribution that does the work; None for ours, whose commit is in the environment.
        start: prepares it; raises ImportError if something is not installed.
        weights: whose weights it has; "ours" are checked against eager FP64.
        batches: whether it moves several systems at once.
        cuda_only: whether it needs a GPU.
        note: remark for the table.
    """

    what: str
    package: str | None
    start: Callable[[Work], Running]
    weights: str = "ours"
    batches: bool = False
    cuda_only: bool = False
    note: str = ""


def ours(work: Work) -> Running:
    """Our integrator, with a recorded frame at the end of each call; on `cuda_graph` a call replays one graph."""
    model = work.checkpoint.model
    return _moved_by_us(make_engine(model, work.engine, work.precision, work.device), work)


def ase_eager(work: Work) -> Running:
    """ASE's integrator with our calculator, without compilation."""
    path = work.checkpoint.path
    calculator = StudentForceFieldCalculator(path, work.device, engine="eager", precision=work.precision)
    return _moved_by_ase(calculator, work)


def schnetpack(work: Work) -> Running:
    """SchNetPack's PaiNN of our size in its own ASE calculator, with its fastest neighbour list."""
    from schnetpack import nn
    from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances
    from schnetpack.interfaces import SpkCalculator
    from schnetpack.model import NeuralNetworkPotential
    from schnetpack.representation import PaiNN
    from schnetpack.transform import VesinNeighborList

    sizes = work.checkpoint.model.architecture
    torch.manual_seed(0)
    model = NeuralNetworkPotential(
        representation=PaiNN(
            n_atom_basis=sizes.n_features,
            n_interactions=sizes.n_interactions,
            radial_basis=nn.BesselRBF(n_rbf=sizes.n_rbf, cutoff=sizes.cutoff),
            cutoff_fn=nn.CosineCutoff(sizes.cutoff),
        ),
        input_modules=[PairwiseDistances()],
        output_modules=[Atomwise(n_in=sizes.n_features, output_key="energy"), Forces()],
    )
    calculator = SpkCalculator(
        model,
        neighbor_list=VesinNeighborList(sizes.cutoff),
        energy_unit="eV",
        device=work.device,
        dtype=torch.float64 if work.precision == "fp64" else torch.float32,
    )
    return _moved_by_ase(calculator, work, RANDOM_WEIGHTS_TIMESTEP * work.timestep_fs)


def torchsim(work: Work) -> Running:
    """TorchSim's `nve_step` with our eager model; all other atoms are neighbours, and no list is searched."""
    import torch_sim
    from torch_sim.models.interface import ModelInterface

    engine = work.eager()
    batch = collate(work.systems, engine.cutoff, device=work.device)

    class Student(ModelInterface):
        def __init__(self) -> None:
            super().__init__()
            self._device, self._dtype = work.device, torch.float64
            self._compute_forces, self._compute_stress = True, False

        def forward(self, state: Any, **_: Any) -> dict[str, Tensor]:
            prediction = engine(batch.with_positions(state.positions))
            return {"energy": prediction.energy, "forces": prediction.forces}

    model = Student()
    state = torch_sim.io.atoms_to_state(list(work.systems), work.device, torch.float64)
    state = torch_sim.nve_init(state, model, kT=0.0)
    state.momenta = state.masses.unsqueeze(-1) * work.velocities()
    # Its metal units are ASE's.
    timestep = torch.tensor(work.timestep_fs * units.fs, dtype=torch.float64, device=work.device)

    def call() -> None:
        nonlocal state
        for _ in range(work.steps_per_call):
            state = torch_sim.nve_step(state, model, dt=timestep)

    return Running(call, lambda: state.positions, lambda: state.forces)


def compiled_energy(mode: CompileMode) -> Callable[[Work], Running]:
    """`torch.compile` of the energy, differentiated outside, with our integrator step by step."""

    def start(work: Work) -> Running:
        model = work.eager().model
        compiled = cast(ForceField, torch.compile(model, mode=mode, dynamic=False))
        return _moved_by_us(_CompiledEnergy(compiled, work.precision, work.device), work)

    return start


def teacher(work: Work) -> Running:
    """GFN2-xTB in ASE, on the CPU."""
    import tblite.ase  # noqa: F401 (imported here, so that a missing package is an ImportError)

    return _moved_by_ase(teacher_calculator(), work)


class _CompiledEnergy(EagerEngine):
    def __call__(self, batch: AtomicBatch) -> Prediction:
        prediction = super().__call__(batch)
        # Inductor's CUDA graphs hand out the same buffer at every call.
        return Prediction(prediction.energy.clone(), prediction.forces)


def _moved_by_us(engine: Engine, work: Work) -> Running:
    dynamics = Dynamics(engine, list(work.systems), work.timestep_fs)
    state = dynamics.state(dynamics.batch.positions, work.velocities())
    interval = dynamics.make_interval(state, work.steps_per_call)
    return Running(interval, lambda: state.positions, lambda: state.forces)


def _moved_by_ase(calculator: Any, work: Work, timestep_fs: float | None = None) -> Running:
    (given,) = work.systems
    atoms = given.copy()
    atoms.calc = calculator
    verlet = VelocityVerlet(atoms, (timestep_fs or work.timestep_fs) * units.fs)
    return Running(lambda: verlet.run(work.steps_per_call), lambda: atoms.positions, atoms.get_forces)


CONTENDERS: Mapping[str, Contender] = {
    "ours": Contender("ours", None, ours, batches=True, note="recorded frames included"),
    "ase_eager": Contender("ASE, our calculator, eager", "ase", ase_eager),
    "schnetpack": Contender(
        "ASE, SchNetPack's PaiNN",
        "schnetpack",
        schnetpack,
        weights="random",
        note="sizes as ours; a thousandth of the timestep, because random weights hold no molecule together",
    ),
    "torchsim": Contender(
        "TorchSim, our model, eager", "torch-sim-atomistic", torchsim, batches=True, note="neighbours given"
    ),
    "compile_default": Contender(
        "torch.compile of the energy, default", "torch", compiled_energy("default"), batches=True, note="our integrator"
    ),
    "compile_reduce_overhead": Contender(
        "torch.compile of the energy, reduce-overhead",
        "torch",
        compiled_energy("reduce-overhead"),
        batches=True,
        cuda_only=True,
        note="our integrator",
    ),
    "teacher": Contender("ASE, GFN2-xTB", "tblite", teacher, weights="its own", note="on the CPU, FP64"),
}
