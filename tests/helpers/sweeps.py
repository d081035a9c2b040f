"""Sweeps and their results that several tests use."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from mlff_exp.cli.schemas import register_schemas
from mlff_exp.cli.sweeping import HydraHost
from mlff_exp.results.result import RunResult, Timing
from mlff_exp.results.verdict import Criterion, Verdict
from tests.helpers.here import CONF


def config(task: str, engine: str, precision: str, batch_size: int, **more: Any) -> dict[str, Any]:
    dynamics = {"replicas": 3, "systems": [], "duration_ps": 100.0} if task == "nve" else {}
    return {
        "task": {"name": task, **dynamics},
        "model": {"name": "student", "checkpoint": "student"},
        "system": {"name": "benzene"},
        "engine": {"name": engine},
        "precision": {"name": precision},
        "batch_size": batch_size,
        **more,
    }


def interval(metric: str, value: float) -> dict[str, float]:
    return {metric: value, f"{metric}_ci_low": 0.95 * value, f"{metric}_ci_high": 1.05 * value}


def timed(engine: str, precision: str, batch_size: int, speedup: float, **metrics: float) -> RunResult:
    latency = 10 / speedup
    return RunResult(
        config=config("inference", engine, precision, batch_size),
        metrics={
            "latency_median_ms": latency,
            "throughput_systems_per_s": 1000 * batch_size / latency,
            "atoms_per_s": 12000 * batch_size / latency,
            "first_call_s": 20.0,
            "break_even_calls": 2000.0,
            "peak_memory_mib": 100.0 * (0.4 if precision == "fp16_autocast" else 1),
            "energy_relative_mae_vs_fp64_percent": 1e-4,
            "energy_mae_vs_fp64_mev_per_atom": 0.01,
            "force_relative_rmse_vs_fp64_percent": 0.1 if precision == "fp16_autocast" else 1e-4,
            "control_same": 1.0, "control_same_ci_low": 0.99, "control_same_ci_high": 1.01,
            "control_slower": 1.05, "control_slower_ci_low": 1.04, "control_slower_ci_high": 1.06,
            **interval("speedup_vs_baseline", speedup),
            **interval("speedup_vs_fp32", 1.9 if precision == "fp16_autocast" else 1.0),
            **interval("speedup_vs_single_eager", batch_size * speedup),
            **metrics,
        },
        timing={"engine": Timing(tuple(np.linspace(0.9, 1.1, 50) * latency), (), 20.0, (50,))},
        environment={"gpu": "H100", "packages": {"torch": "2.13.0"}},
        tags={"timing.trust": "ok"},
    )  # fmt: skip


CRITERIA = (Criterion("energy_drift_percent", -0.001, -1.0, 1.0, True),)


def moved(engine: str, precision: str, decision: Any, **metrics: float) -> RunResult:
    return RunResult(
        config=config("nve", engine, precision, 1),
        metrics={
            "energy_drift_percent": -0.001, "energy_fluctuation_percent": 0.01, "temperature_mean_k": 295.0,
            "max_bond_change_ang": 0.2, **metrics,
        },
        verdict=Verdict(decision, "strict", CRITERIA, ()),
        environment={"gpu": "H100", "packages": {"torch": "2.13.0"}},
    )  # fmt: skip


def changed(result: RunResult, **groups: Any) -> RunResult:
    """The same with other choices in its configuration."""
    return replace(result, config={**result.config, **groups})


def evaluated(engine: str, precision: str, dataset: str, **metrics: float) -> RunResult:
    """Return errors on a labelled set; the run has no system."""
    environment = {"gpu": "H100", "packages": {"torch": "2.13.0"}}
    recorded = config("accuracy", engine, precision, 16) | {"task": {"name": "accuracy", "dataset": dataset}}
    del recorded["system"]
    return RunResult(recorded, metrics=metrics, environment=environment)


SWEEP = [
    moved("cuda_graph", "fp32", "GO"),
    *(timed("eager", "fp32", size, 1.0) for size in (1, 16)),
    *(timed("cuda_graph", "fp32", size, 40.0) for size in (1, 16)),
    *(timed("cuda_graph", "fp16_autocast", size, 70.0) for size in (1, 16)),
    moved("cuda_graph", "fp16_autocast", "NO-GO"),
]


def host_of(overrides: list[str]) -> HydraHost:
    """Make the host that the plugin would make; it runs nothing."""
    register_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("config", overrides, RunMode.MULTIRUN)
    return HydraHost(loader, config, BasicLauncher(), {}, [])
