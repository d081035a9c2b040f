"""Time shapes of the fused engine in alternation: the basis of `shape_for`, and the time of each kernel.

As in molecular dynamics, a CUDA graph with several evaluations is timed, and compared with the shape that `shape_for`
chooses. A shape is SLOTS,MOLECULES,COLUMNS,WARPS,SPLIT,PAIR_COLUMNS,PAIR_WARPS,EARLY or
WARPS,REGISTERS: the attributes of `StagedShape` or `MoleculeShape` in `mlff_exp/engines/fused/shapes.py`.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from ase.build import molecule
from tqdm import tqdm
from triton.runtime.errors import TritonError

from mlff_exp.config import Precision
from mlff_exp.engines import (
    ENGINES,
    EngineError,
    FusedEngine,
    MoleculeShape,
    Shape,
    StagedShape,
    capture,
    make_engine,
)
from mlff_exp.measure import Candidate, measure_side_by_side, median_ms, profile_kernels, require_correct, time_ratio
from mlff_exp.models import PaiNN, load_checkpoint
from mlff_exp.structures import AtomicBatch, collate

DISPLACEMENT_ANG = 0.05
EVALUATIONS = 10  # in a graph


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    checkpoint: str
    precision: Precision
    n_systems: int
    shape: Shape


def parse_shape(words: str) -> Shape:
    """Parse a shape from its numbers.

    Raises:
        argparse.ArgumentTypeError: the message names the numbers and what they should be.
    """
    try:
        numbers = [int(word) for word in words.split(",")]
        if len(numbers) == len(fields(MoleculeShape)):
            return MoleculeShape(*numbers)
        slots, molecules, columns, warps, split, pair_columns, pair_warps, early = numbers
    except ValueError as error:
        legal = " nor ".join(",".join(field.name for field in fields(kind)) for kind in (StagedShape, MoleculeShape))
        raise argparse.ArgumentTypeError(f"{words!r} is neither {legal} in integers") from error
    return StagedShape(slots, molecules, columns, warps, bool(split), pair_columns, pair_warps, bool(early))


def format_shape(shape: Shape) -> str:
    """Return a shape in the form that `parse_shape` reads."""
    return ",".join(str(int(number)) for number in astuple(shape))


def make_benzenes(n_systems: int, cutoff: float, device: torch.device, seed: int) -> AtomicBatch:
    """Make benzenes with different random displacements."""
    random, systems = np.random.default_rng(seed), []
    for _ in range(n_systems):
        atoms = molecule("C6H6")
        atoms.positions += random.normal(scale=DISPLACEMENT_ANG, size=atoms.positions.shape)
        systems.append(atoms)
    return collate(systems, cutoff, device=device)


def make_fused_engine(name: str, precision: Precision, shape: Shape | None = None) -> FusedEngine:
    """Make the fused engine of a checkpoint on the GPU."""
    model = load_checkpoint(name).model.to("cuda")
    if not isinstance(model, PaiNN):
        raise SystemExit(f"fused_shapes: {name} is not of this project's architecture")
    return FusedEngine(model, precision, torch.device("cuda"), shape)


def make_checked_engine(case: Case) -> tuple[FusedEngine, AtomicBatch]:
    """Make an engine and a batch, and compare the engine with eager FP64.

    Raises:
        EngineError: the engine is not correct.
    """
    engine = make_fused_engine(case.checkpoint, case.precision, case.shape)
    batch = make_benzenes(case.n_systems, engine.cutoff, engine.device, 0)
    reference = make_engine(load_checkpoint(case.checkpoint).model.to("cuda"), "eager", "fp64", engine.device)
    require_correct(engine, reference, batch, case.precision)
    return engine, batch


def chosen_shape(name: str, precision: Precision, n_systems: int) -> Shape:
    """Return the shape that the engine chooses by itself."""
    engine = make_fused_engine(name, precision)
    return engine.shape_of(make_benzenes(n_systems, engine.cutoff, engine.device, 0))


def find_failures(cases: list[Case]) -> list[str]:
    """Fill Triton's cache; return for each case why it can't be timed, or an empty text."""
    found = []
    for case in cases:
        try:
            make_checked_engine(case)
            found.append("")
        except (EngineError, FloatingPointError, RuntimeError, TritonError) as error:
            found.append(str(error).strip().split("\n")[0] or type(error).__name__)
    return found


def select_usable(cases: list[Case]) -> list[Case]:
    """Return the cases that compile and are correct, in their order; the others are reported on stderr."""
    alike: dict[tuple[Precision, Shape], list[Case]] = {}  # cases with the same kernels
    for case in cases:
        alike.setdefault((case.precision, case.shape), []).append(case)
    context = multiprocessing.get_context("spawn")  # forked processes can't use the GPU
    left_out = set()
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 16, len(alike)), mp_context=context) as pool:
        futures = {pool.submit(find_failures, group): group for group in alike.values()}
        for future in tqdm(as_completed(futures), total=len(futures), desc="compiling", unit="shape", disable=None):
            for case, failure in zip(futures[future], future.result(), strict=True):
                if failure:
                    left_out.add(case)
                    what = f"{case.precision} {case.n_systems} {format_shape(case.shape)}"
                    tqdm.write(f"fused_shapes: not timed: {what}: {failure}", file=sys.stderr)
    return [case for case in cases if case not in left_out]


def capture_replay(engine: FusedEngine, batch: AtomicBatch) -> Callable[[], None]:
    """Capture several evaluations in a CUDA graph and return its replay."""

    def evaluate() -> None:
        for _ in range(EVALUATIONS):
            engine(batch)

    graph, _ = capture(evaluate, engine.device, warm_up=[functools.partial(engine, batch)])
    return graph.replay


def make_rows(cases: list[Case], min_calls: int) -> Iterator[str]:
    """Yield table rows of one precision and batch size; the other cases are compared with the first."""
    engines = [make_checked_engine(case) for case in cases]
    candidates = {
        format_shape(case.shape): Candidate(capture_replay(engine, batch), min_calls, 0.2)
        for case, (engine, batch) in zip(cases, engines, strict=True)
    }
    timing = measure_side_by_side(candidates, torch.device("cuda"))
    first, *_ = timing.values()
    for case, (engine, batch) in zip(cases, engines, strict=True):
        own, words = timing[format_shape(case.shape)], format_shape(case.shape)
        faster = time_ratio(first, own)
        found = profile_kernels(functools.partial(engine, batch))
        kernels = "; ".join(f"{kernel.name} {kernel.total_us:.1f} µs/{kernel.launches}" for kernel in found)
        chosen = case.shape == chosen_shape(case.checkpoint, case.precision, case.n_systems)
        interval = "" if own is first else f"{faster.value:.2f}× [{faster.low:.2f}, {faster.high:.2f}]"
        yield (
            f"| {case.precision} | {case.n_systems} | {words}{' (chosen)' if chosen else ''} | "
            f"{1000 * median_ms(own) / EVALUATIONS:.1f} | {interval} | {kernels} |"
        )


def main() -> None:
    """Print the table and write it to a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fused_shapes", description=__doc__)
    parser.add_argument("--checkpoint", default="student", help="a shipped name or a path")
    parser.add_argument(
        "--precision", nargs="+", choices=ENGINES["fused"].precisions, default=["fp32", "fp16_autocast"]
    )
    parser.add_argument("--batch-size", nargs="+", type=int, default=[1, 16, 132, 1024], help="benzenes side by side")
    parser.add_argument("--shape", action="append", type=parse_shape, default=[], help="besides the one that is chosen")
    parser.add_argument("--min-calls", type=int, default=100, help=f"samples of each, of {EVALUATIONS} evaluations")
    parser.add_argument("--output", type=Path, required=True, help="directory for fused_shapes.md")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("fused_shapes: the fused engine needs a CUDA GPU")
    cases = [
        Case(options.checkpoint, precision, n_systems, shape)
        for precision in options.precision
        for n_systems in options.batch_size
        for shape in dict.fromkeys([chosen_shape(options.checkpoint, precision, n_systems), *options.shape])
    ]
    groups: dict[tuple[Precision, int], list[Case]] = {}
    for case in select_usable(cases):
        groups.setdefault((case.precision, case.n_systems), []).append(case)
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / "fused_shapes.md").open("w", encoding="utf-8") as file:
        for line in (
            f"{torch.cuda.get_device_name()}, torch {torch.__version__}",
            "",
            "| precision | molecules | shape | µs | faster than chosen | kernels by themselves: µs of all launches |",
            "| --- | --- | --- | --- | --- | --- |",
        ):
            print(line, file=file)
        for group in groups.values():
            for line in make_rows(group, options.min_calls):
                tqdm.write(line)
                print(line, file=file, flush=True)


if __name__ == "__main__":
    main()
