"""Time steps of molecular dynamics of this project and of other programs, and write a table with ratios."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.comparison import DifferentWorkError, compare, make_start
from benchmarks.contenders import CONTENDERS, Work
from benchmarks.tables import markdown, plot
from mlff_exp.config import PRECISIONS, ConfigError, positive
from mlff_exp.engines import ENGINES, EngineError
from mlff_exp.measure import DisturbanceMonitor, describe_machine
from mlff_exp.models import CheckpointError, load_checkpoint
from mlff_exp.runs import use_device

TIMESTEP_FS = 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of ``python -m benchmarks.peers``."""
    options = _parser().parse_args(arguments)
    use_device(options.device)
    device = torch.device(options.device)
    engine: str = options.engine or ("fused" if device.type == "cuda" else "compile")
    chosen = {name: one for name, one in CONTENDERS.items() if name in ("ours", *options.only)}
    monitor = DisturbanceMonitor(device)
    try:
        for key in ("batch_size", "steps_per_call", "min_calls", "min_time_s"):
            positive(key, getattr(options, key))
        work = Work(
            systems=make_start(options.batch_size, options.seed),
            checkpoint=load_checkpoint(options.checkpoint),
            device=device,
            precision=options.precision,
            engine=engine,
            timestep_fs=TIMESTEP_FS,
            steps_per_call=options.steps_per_call,
        )
        rows, faults = compare(work, chosen, options.min_calls, options.min_time_s, monitor)
    except (CheckpointError, ConfigError, EngineError, DifferentWorkError) as error:
        sys.exit(f"peers: {error}")
    facts = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": f"benzene × {options.batch_size}",
        "engine": engine,
        "precision": options.precision,
        "weights_sha256": work.checkpoint.weights_sha256,
        "timestep_fs": TIMESTEP_FS,
        "steps_per_call": options.steps_per_call,
        "trust": "; ".join(faults) or "ok",
        "environment": {**describe_machine(device), **monitor.summary()},
    }
    options.output.mkdir(parents=True, exist_ok=True)
    raw = {**facts, "rows": [dataclasses.asdict(row) for row in rows]}
    (options.output / "peers.json").write_text(
        json.dumps(raw, allow_nan=False, ensure_ascii=False, indent=1), encoding="utf-8"
    )
    page = markdown(rows, facts)
    (options.output / "peers.md").write_text(page, encoding="utf-8")
    plot(rows, facts, options.output / "peers.png")
    print(page)
    failed = [row.name for row in rows if row.failed]
    if failed:
        sys.exit(f"peers: {', '.join(failed)} failed")


def _parser() -> argparse.ArgumentParser:
    peers = [name for name in CONTENDERS if name != "ours"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--engine", choices=ENGINES.names(), help="ours (default: fused on CUDA, compile on a CPU)")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of all that has our weights")
    parser.add_argument("--checkpoint", default="student", help="our weights: a shipped name or a path")
    parser.add_argument("--batch-size", type=int, default=1, help="benzenes side by side")
    parser.add_argument("--steps-per-call", type=int, default=10, help="steps that are timed as one")
    parser.add_argument("--min-calls", type=int, default=100, help="samples of each contender")
    parser.add_argument("--min-time-s", type=float, default=2.0, help="time to measure each for")
    parser.add_argument("--only", nargs="+", choices=peers, default=peers, metavar="NAME", help=", ".join(peers))
    parser.add_argument("--output", type=Path, required=True, help="directory for peers.json, peers.md and peers.png")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
