"""Results that several tests use."""

from __future__ import annotations

from mlff_exp.results.result import RunResult, Timing
from mlff_exp.results.verdict import Criterion, Verdict

CONFIG = {
    "task": {"name": "inference"},
    "model": {"name": "student", "checkpoint": "student"},
    "system": {"name": "benzene"},
    "engine": {"name": "compile", "mode": "reduce-overhead"},
    "precision": {"name": "fp32"},
    "batch_size": 16,
    "sweep": {"gate_decision": "no_verdict"},
}


def full_result() -> RunResult:
    return RunResult(
        config=CONFIG,
        metrics={"latency_median_ms": 1.25},
        series={"loss": [[1, 0.5], [2, 0.25]]},  # type: ignore[list-item]
        timing={"engine": Timing((1.0, 2.0), (3.0,), 0.5, (1, 1))},
        environment={"packages": {"torch": "2.13.0"}},
        artifacts=["latency.png"],
        verdict=Verdict("NO-GO", "strict", (Criterion("drift", None, None, 1.0, False),), ("drift is not measured",)),
        tags={"engine.ran": "compile"},
    )
