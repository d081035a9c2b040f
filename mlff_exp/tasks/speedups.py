"""Metrics of speed, and speedups over the baselines of a timing."""

from __future__ import annotations

from mlff_exp.config import Config
from mlff_exp.engines import REFERENCE_ENGINE
from mlff_exp.measure import mad_ms, median_interval_ms, median_ms, p95_ms, time_ratio
from mlff_exp.results import Estimate, Timing
from mlff_exp.tasks.registry import precisions

# The baseline of each speedup: name of the metric and key of the timing.
SPEEDUPS = {
    "speedup_vs_baseline": "eager_fp32",
    "speedup_vs_fp32": "same_engine_fp32",
    "speedup_vs_single_eager": "eager_fp32_single",
    "speedup_vs_calculator": "ase_calculator",
}
SINGLE = ("eager_fp32_single", "ase_calculator")  # they evaluate one structure, whatever the batch size


def speed_metrics(engine: Timing, batch_size: int, n_atoms: int) -> dict[str, float]:
    """Return latency and throughput of an engine that evaluates batches.

    Args:
        engine: its timing.
        batch_size: systems of a batch.
        n_atoms: atoms of a batch.
    """
    median = median_ms(engine)
    return {
        **Estimate(median, *median_interval_ms(engine)).as_metrics("latency_median_ms"),
        "latency_p95_ms": p95_ms(engine),
        "latency_mad_ms": mad_ms(engine),
        "throughput_systems_per_s": 1000 * batch_size / median,
        "atoms_per_s": 1000 * n_atoms / median,
    }


def speedup_metrics(timing: dict[str, Timing], config: Config) -> dict[str, float]:
    """Return the speedups over every baseline that was timed, and after how many calls the first one has paid.

    Args:
        timing: timings by the keys of `SPEEDUPS` and of ``task.baselines``; ``engine`` is the engine of the run.
        config: the configuration.
    """
    engine = timing["engine"]
    metrics: dict[str, float] = {}
    others = {f"speedup_vs_{name}": name for name in config.task.baselines if name in timing}
    for metric, baseline in (SPEEDUPS | others).items():
        if baseline not in timing:
            continue
        # Per structure: this engine evaluates a batch.
        structures = config.batch_size if baseline in SINGLE else 1
        metrics |= time_ratio(timing[baseline], engine).scaled(structures).as_metrics(metric)
    is_baseline = (config.engine.name, config.precision.name) == (REFERENCE_ENGINE, "fp32")
    if metrics.get("speedup_vs_baseline_ci_low", 0.0) > 1 and not is_baseline:
        # The time saved by a call follows from the speedup; the first call counts as a call.
        saved_s = median_ms(engine) / 1000 * (metrics["speedup_vs_baseline"] - 1)
        paid = max(0.0, engine.first_call_s - timing["eager_fp32"].first_call_s)
        metrics["break_even_calls"] = 1 + paid / saved_s
    return metrics


def repeated_baselines(config: Config) -> dict[str, str]:
    """Return baselines that equal another candidate, by the name of that candidate, so that both are measured once."""
    eager, single = config.engine.name == REFERENCE_ENGINE, config.batch_size == 1
    wide = config.precision.name == precisions(config)[-1]
    same = {}
    if wide:
        same["same_engine_fp32"] = "control_same"
    elif eager:
        same["same_engine_fp32"] = "eager_fp32"
    if wide and eager:
        same["eager_fp32"] = "control_same"
    if single:
        same["eager_fp32_single"] = same.get("eager_fp32", "eager_fp32")
    return same
