"""The student as an ASE calculator, on the same engines as the benchmarks."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from mlff_exp.config import CompileMode, Precision
from mlff_exp.engines import (
    COMPILED_ENGINE,
    REFERENCE_ENGINE,
    BatchCalculator,
    ForceField,
    Prediction,
    check_finite,
    engine_options,
    engine_spec,
    make_engine,
)
from mlff_exp.models import load_checkpoint
from mlff_exp.structures import AtomicBatch, check_apart, collate, refuse_charge_and_spin

BATCH_PROPERTIES = ("energy", "free_energy", "forces")


class StudentForceFieldCalculator(BatchCalculator):
    """Energies (eV), forces (eV/Å) and, if enabled, stress (eV/Å³) of a student force field.

    If compiling fails, it goes on with the eager engine, says so in a warning, and ``engine`` tells.

    Args:
        checkpoint_path: name of a shipped checkpoint, or a file.
        device: CUDA if it is there, else the CPU, if not given.
        dtype: `torch.float32` or `torch.float64`.
        use_compile: compile energy and forces as one graph; the first call of each shape takes seconds.
        compile_mode: of `torch.compile`.
        use_fp16: FP16 autocast; on a CPU it would be slow and overflow, so FP32 is used, with a warning.
        engine: eager, compile, cuda_graph or fused; overrides ``use_compile``.
        precision: fp64, fp32, tf32, fp16_autocast or bf16_autocast; overrides ``dtype`` and ``use_fp16``.
        enable_stress: add stress to the implemented properties; the engine then gives it with energy and forces.
        enable_timing: log the time of every evaluation.
        logger: where compilations, fallbacks and timings are logged.
        ignore_charge: evaluate the neutral singlet of a structure with a charge, a spin or magnetic moments.

    Raises:
        CheckpointError: the checkpoint can't be used.
        ValueError: an unknown device, engine, mode, precision or dtype.
        EngineError: an engine or precision that the device does not have, or stress from an engine that gives none.
    """

    implemented_properties: list[str] = ["energy", "free_energy", "forces"]  # noqa: RUF012 (ASE's declaration)

    def __init__(
        self,
        checkpoint_path: str | Path = "student",
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        use_compile: bool = True,
        compile_mode: CompileMode = "reduce-overhead",
        use_fp16: bool = False,
        engine: str | None = None,
        precision: Precision | None = None,
        enable_stress: bool = False,
        enable_timing: bool = False,
        logger: logging.Logger | None = None,
        ignore_charge: bool = False,
    ) -> None:
        super().__init__()
        self._arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self.logger = logging.getLogger(__name__) if logger is None else logger
        self.device = _device(device)
        self.checkpoint = load_checkpoint(checkpoint_path)
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype={dtype} is not one of: torch.float32, torch.float64 (FP16: use_fp16=True)")
        if precision is None:
            precision = self._precision_of_flags(dtype, use_fp16)
        if engine is None:
            engine = COMPILED_ENGINE if use_compile else REFERENCE_ENGINE
        self.precision: Precision = precision
        self.enable_timing, self.ignore_charge = enable_timing, ignore_charge
        self._compiles = engine_spec(engine).compiles
        self._engine = make_engine(
            self._model, engine, precision, self.device, engine_options(engine, mode=compile_mode), stress=enable_stress
        )
        self._stress = enable_stress
        if enable_stress:
            self.implemented_properties = [*type(self).implemented_properties, "stress"]
        self._n_calls, self._time_s = 0, 0.0

    @property
    def engine(self) -> str:
        """The engine that really runs, after a fallback too."""
        return self._engine.name

    @property
    def n_calls(self) -> int:
        """Evaluations of the model; results that ASE had cached do not count."""
        return self._n_calls

    def find_results(self, atoms: Atoms, properties: Sequence[str]) -> dict[str, Any]:
        """Energy, free energy and forces of a structure; its stress if that is enabled and if it has one.

        Raises:
            ValueError: a structure that no force field takes, elements the model does not know, or a charge, spin or
                magnetic moments, which it does not know either; or the stress of a structure that is not periodic in
                all three directions.
            FloatingPointError: the precision overflowed.
        """
        (found,) = self._evaluate([atoms], properties)
        return found

    def calculate_batch(
        self, list_of_atoms: Iterable[Atoms] | Atoms, properties: Iterable[str] | str = ("energy", "forces")
    ) -> list[dict[str, Any]]:
        """Evaluate many structures at once.

        Args:
            list_of_atoms: structures, also from a generator; a single one is a list of one.
            properties: names, or a single one.

        Returns:
            For each structure a dict with the properties asked for.

        Raises:
            TypeError: something among the structures that is no `ase.Atoms`.
            ValueError: as `calculate`, or a property that is not implemented.
        """
        wanted = [properties] if isinstance(properties, str) else list(properties)
        legal = (*BATCH_PROPERTIES, "stress") if self._stress else BATCH_PROPERTIES
        unknown = sorted(set(wanted) - set(legal))
        if unknown:
            raise ValueError(f"calculate_batch can't give {', '.join(unknown)}: choose from {', '.join(legal)}")
        systems = [list_of_atoms] if isinstance(list_of_atoms, Atoms) else list(list_of_atoms)
        for index, atoms in enumerate(systems):
            if not isinstance(atoms, Atoms):
                raise TypeError(f"calculate_batch takes ase.Atoms, and number {index} is {type(atoms).__name__}")
        if not systems:
            return []
        return [{name: result[name] for name in wanted} for result in self._evaluate(systems, wanted)]

    def warmup(self, atoms: Atoms) -> None:
        """Compile for the shape of ``atoms`` now, instead of at the first call; not counted."""
        self._predict(self._batch([atoms]))

    def get_timing_stats(self) -> dict[str, float]:
        """Seconds spent in evaluations: ``n_calls``, ``avg_time``, ``total_time``."""
        return {"n_calls": self.n_calls, "avg_time": self._time_s / max(1, self.n_calls), "total_time": self._time_s}

    def reset(self) -> None:
        """Forget results, counts and times; compiled graphs are kept."""
        super().reset()
        self._n_calls, self._time_s = 0, 0.0

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(checkpoint={self.checkpoint.path.name!r}, engine={self.engine!r}, "
            f"precision={self.precision!r}, device='{self.device}')"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made anew from the arguments: compiled graphs belong to one process."""
        return _make, (type(self), self._arguments)

    @property
    def _model(self) -> ForceField:
        return self.checkpoint.model

    def _precision_of_flags(self, dtype: torch.dtype, use_fp16: bool) -> Precision:
        if use_fp16 and self.device.type == "cpu":
            self.logger.warning("use_fp16: FP16 on a CPU is slow and overflows; going on in FP32")
        elif use_fp16:
            return "fp16_autocast"
        return "fp64" if dtype == torch.float64 else "fp32"

    def _batch(self, systems: Sequence[Atoms]) -> AtomicBatch:
        for atoms in systems:
            self._model.check_elements(atoms.symbols)
            if not self.ignore_charge:
                try:
                    refuse_charge_and_spin(atoms)
                except ValueError as error:
                    raise ValueError(f"{error}; ignore_charge=True takes it for that") from error
        # Every new shape is a compilation, so a compiled engine gets few of them.
        near = self._engine.shorter_cutoffs
        return collate(systems, self._model.cutoff, near=near, bucketed=self._compiles, device=self.device)

    def _evaluate(self, systems: Sequence[Atoms], wanted: Iterable[str]) -> list[dict[str, Any]]:
        batch = self._batch(systems)
        if self._stress and "stress" in wanted and not batch.fully_periodic:
            raise ValueError("stress needs a structure that is periodic in all three directions")
        started = time.perf_counter()
        prediction = self._predict(batch)
        try:
            check_finite(prediction, batch, self.precision)
        except FloatingPointError:
            for atoms in systems:  # atoms in one place have no direction to be pushed in
                check_apart(atoms)
            raise
        energies = prediction.energy.cpu().numpy()
        forces = batch.per_system(prediction.forces).cpu().numpy()
        stress = None if prediction.stress is None else prediction.stress.cpu().numpy()
        seconds = time.perf_counter() - started
        self._n_calls += 1
        self._time_s += seconds
        if self.enable_timing:
            self.logger.info("%d structures in %.3f ms", len(systems), 1000 * seconds)
        return [
            {
                "energy": float(energies[index]),
                # ASE's optimisers ask for it; it equals the energy at zero electronic temperature.
                "free_energy": float(energies[index]),
                "forces": np.array(forces[index, : len(atoms)]),
                **({} if stress is None else {"stress": full_3x3_to_voigt_6_stress(stress[index])}),
            }
            for index, atoms in enumerate(systems)
        ]

    def _predict(self, batch: AtomicBatch) -> Prediction:
        # Kernels and graphs go to the current GPU, which need not be the one that the tensors are on.
        with torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext():
            return self._predict_here(batch)

    def _predict_here(self, batch: AtomicBatch) -> Prediction:
        graphs, seconds = self._engine.compiled_graphs, self._engine.compile_s
        if not self._engine.has_graph(batch):
            self.logger.info("compiling %s for %d systems of %d slots", self.engine, batch.n_systems, batch.n_slots)
        try:
            prediction = self._engine(batch)
        # torch.compile wraps whatever its backend raises in subclasses of RuntimeError.
        except RuntimeError as error:
            if not self._compiles:
                raise
            self.logger.warning("%s failed, going on with eager: %s", self.engine, error)
            self._compiles = False
            self._engine = make_engine(self._model, REFERENCE_ENGINE, self.precision, self.device, stress=self._stress)
            return self._engine(batch)
        if self._engine.compiled_graphs > graphs:
            self.logger.info("compiled %s in %.1f s", self.engine, self._engine.compile_s - seconds)
        return prediction


def _make(kind: type[StudentForceFieldCalculator], arguments: Mapping[str, Any]) -> StudentForceFieldCalculator:
    return kind(**arguments)


def _device(device: str | torch.device | None) -> torch.device:
    """Return the device with this name, or the GPU if there is one and no name is given.

    Raises:
        ValueError: no such device, naming those that there are.
    """
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device is None:
        return torch.device("cuda" if n_gpus else "cpu")
    legal = ["cpu", *(["cuda"] if n_gpus else []), *(f"cuda:{index}" for index in range(n_gpus))]
    if str(device) not in legal:
        raise ValueError(f"device={str(device)!r} is not one of those of this machine: {', '.join(legal)}")
    return torch.device(device)
