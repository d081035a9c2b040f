"""What the plan promised and what we aim at, held against the finished runs of a sweep."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlff_exp.results import RunResult, label

Results = Sequence[RunResult]
# The plan's limits of what an optimisation may cost, in percent of the energy and of the root mean square force.
MAX_ENERGY_ERROR_PERCENT, MAX_FORCE_ERROR_PERCENT = 0.1, 1.0
MIN_NVE_PS = 10.0  # over less a drift can't be told from the slow breathing of the energy
FP32, LOW = ("fp32",), ("fp16_autocast",)
# What torch.compile makes, and with what was written by hand everything that is not eager.
COMPILED, FUSED = ("compile", "cuda_graph"), ("fused",)
FAST = (*COMPILED, *FUSED)
BENZENE = [{"name": "benzene"}]  # what the plan is about


@dataclass(frozen=True)
class Measured:
    """A number with its interval, the run that it comes from, and whether its timing can be trusted.

    Attributes:
        low, high: the value itself where nothing scatters.
        timed_once: a time without an interval, and without controls beside it.
    """

    value: float
    low: float
    high: float
    run: str
    trusted: bool = True
    timed_once: bool = False


@dataclass(frozen=True)
class Target:
    """One promise: ``pick`` finds what was measured, None if nothing was."""

    name: str
    promised: str
    limit: float
    at_most: bool
    pick: Callable[[Results], Measured | None]


@dataclass(frozen=True)
class JudgedTarget:
    """A promise and what became of it; ``held`` is None if it was not measured, or by a timing that is not trusted."""

    line: Target
    measured: Measured | None
    held: bool | None


def judge_targets(results: Results, lines: Iterable[Target] | None = None) -> list[JudgedTarget]:
    """Every line held against the results of one force field, the first, and of one system, benzene if it is there.

    With an interval, its unfavourable end counts. The validation set is of no system, and counts for each.
    """
    judged = []
    results = [result for result in results if _weights(result) == _weights(results[0])]
    systems = [_systems(result) for result in results if _choice(result, "task") != "accuracy"]
    of = BENZENE if BENZENE in systems else next(iter(systems), [])
    results = [result for result in results if _choice(result, "task") == "accuracy" or _systems(result) == of]
    for line in PLAN if lines is None else lines:
        measured = line.pick(results)
        held = None
        if measured is not None and measured.trusted:
            held = measured.high <= line.limit if line.at_most else measured.low >= line.limit
        judged.append(JudgedTarget(line, measured, held))
    return judged


def for_targets(results: Results) -> list[RunResult]:
    """The runs that `TARGETS` and `FUSED_TARGETS` are about: benzene and the shipped student on an H100."""
    return [
        result
        for result in results
        if "H100" in (result.environment.get("gpu") or "")
        and result.config["model"].get("checkpoint") == "student"
        and (_choice(result, "task") == "accuracy" or _systems(result) == BENZENE)
    ]


def validity(result: RunResult, results: Results) -> str:
    """Whether a run's speedup is one: fast, accurate and, by the NVE runs among the results, stable."""
    metrics = result.metrics
    if "speedup_vs_baseline" not in metrics or (_choice(result, "engine") == "eager" and _precision(result) == "fp32"):
        return ""
    if not result.trusted:
        return "not trusted"
    if metrics["speedup_vs_baseline_ci_low"] <= 1:
        return "no: not faster"
    if (
        metrics["force_relative_rmse_vs_fp64_percent"] > MAX_FORCE_ERROR_PERCENT
        or metrics["energy_relative_mae_vs_fp64_percent"] > MAX_ENERGY_ERROR_PERCENT
    ):
        return "no: inaccurate"
    return {None: "stability not known", "NO-GO": "no: unstable", "GO": "yes"}[stability(result, results)]


def stability(result: RunResult, results: Results) -> str | None:
    """What NVE runs among the results said of a run's force field and system: GO only if all did; None without any.

    A GO over less than `MIN_NVE_PS` says nothing of stability.
    """
    (system,) = _systems(result)
    decisions = {_decision(other, system) for other in results if force_field(other) == force_field(result)} - {None}
    return "NO-GO" if "NO-GO" in decisions else "GO" if decisions else None


def _decision(result: RunResult, system: Mapping[str, Any]) -> str | None:
    """What a run's verdict says of one system; nothing if another moved, or if it got through by measuring little."""
    verdict, systems = result.verdict, _systems(result)
    if verdict is None or system not in systems:
        return None
    decision: str = verdict.decision
    if len(systems) > 1:  # each reason begins with its system
        failed = any(reason.startswith(f"{system['name']}: ") for reason in verdict.reasons)
        decision = "NO-GO" if failed else "GO"
    worth = verdict.criteria and result.config["task"].get("duration_ps", 0.0) >= MIN_NVE_PS
    return decision if worth or decision == "NO-GO" else None


def force_field(result: RunResult) -> tuple[Any, ...]:
    """What computes the forces: model with its weights, engine with its mode, and precision."""
    model, engine = result.config["model"], result.config["engine"]
    if model["name"] == "ase":
        return (json.dumps(model["calculator"], sort_keys=True),)
    weights = result.tags.get("checkpoint.sha256")
    return model["checkpoint"], weights, engine["name"], engine.get("mode"), _precision(result)


def least_accurate(metric: str, results: Results) -> RunResult | None:
    """The run with the largest error, of the batches that were timed and of the validation set."""
    found = [
        result
        for result in results
        if metric in result.metrics and result.config["task"].get("dataset", "validation") == "validation"
    ]
    return max(found, key=lambda result: result.metrics[metric], default=None)


def _weights(result: RunResult) -> tuple[Any, ...]:
    model = result.config["model"]
    return model.get("checkpoint"), model.get("calculator")


def _systems(result: RunResult) -> list[Mapping[str, Any]]:
    """What moves or is evaluated, as in the configuration; the accuracy task looks at none of it."""
    side_by_side = result.config["task"].get("systems")
    if side_by_side:
        return [{"name": name} for name in side_by_side]
    return [result.config["system"]] if "system" in result.config else []


def _choice(result: RunResult, group: str) -> str:
    return str(result.config[group]["name"])


def _precision(result: RunResult) -> str:
    return _choice(result, "precision")


def _timed(
    results: Results, precisions: tuple[str, ...], batch_size: int | None, engines: tuple[str, ...]
) -> list[RunResult]:
    """Finished timings; without a batch size those of every batch, which has more than one structure."""
    return [
        result
        for result in results
        if _choice(result, "task") == "inference"
        and "speedup_vs_baseline" in result.metrics
        and _choice(result, "engine") in engines
        and _precision(result) in precisions
        and (result.config["batch_size"] > 1 if batch_size is None else result.config["batch_size"] == batch_size)
    ]


def _best(
    metric: str,
    precisions: tuple[str, ...],
    batch_size: int | None,
    results: Results,
    *,
    engines: tuple[str, ...] = FAST,
    lowest: bool = False,
) -> Measured | None:
    """Of a metric that comes from timing; of those that can be trusted, if any can."""
    candidates = [result for result in _timed(results, precisions, batch_size, engines) if metric in result.metrics]
    candidates = [result for result in candidates if result.trusted] or candidates
    if not candidates:
        return None
    found = (min if lowest else max)(candidates, key=lambda result: result.metrics[metric])
    return Measured(found.metrics[metric], *_ends(found, metric), label(found.config), found.trusted)


def _ends(result: RunResult, metric: str) -> tuple[float, float]:
    """A metric's interval; that of the throughput is the latency's, upside down."""
    metrics, value = result.metrics, result.metrics[metric]
    if metric == "throughput_systems_per_s":
        latency = metrics["latency_median_ms"]
        low, high = (metrics.get(f"latency_median_ms_ci_{end}", latency) for end in ("low", "high"))
        return value * latency / high, value * latency / low
    return metrics.get(f"{metric}_ci_low", value), metrics.get(f"{metric}_ci_high", value)


def _worst(metric: str, precisions: tuple[str, ...], results: Results) -> Measured | None:
    """Of an error, whatever the engine."""
    found = least_accurate(metric, [result for result in results if _precision(result) in precisions])
    if found is None:
        return None
    value = found.metrics[metric]
    return Measured(value, value, value, label(found.config))


def _memory(engines: tuple[str, ...], results: Results) -> Measured | None:
    """Peak memory of FP16 as a change in percent of FP32's, same engine and batch, at the largest batch there is."""
    metric, pairs = "peak_memory_mib", []
    for low in _timed(results, LOW, None, engines):
        for full in _timed(results, FP32, low.config["batch_size"], engines):
            same = force_field(low)[:-1] == force_field(full)[:-1]
            # A run on a CPU has no peak.
            if same and metric in low.metrics and metric in full.metrics:
                change = 100 * (low.metrics[metric] / full.metrics[metric] - 1)
                pairs.append((low.config["batch_size"], -change, low))
    if not pairs:
        return None
    _, saved, result = max(pairs, key=lambda pair: pair[:2])
    return Measured(-saved, -saved, -saved, label(result.config))


def _nve(metric: str, ideal: float, results: Results) -> Measured | None:
    """How far a metric is from what is ideal in the first long FP32 NVE run: that of the gate, where there is one."""
    for result in results:
        long = result.verdict is not None and result.config["task"].get("duration_ps", 0.0) >= MIN_NVE_PS
        if long and metric in result.metrics and _precision(result) == "fp32":
            value, (low, high) = result.metrics[metric], _ends(result, metric)
            ends = abs(low - ideal), abs(high - ideal)
            nearest = 0.0 if low <= ideal <= high else min(ends)
            return Measured(abs(value - ideal), nearest, max(ends), label(result.config))
    return None


def _step_us(
    replicas: int, precisions: tuple[str, ...], results: Results, *, engines: tuple[str, ...] = FAST
) -> Measured | None:
    """Of the fastest NVE run of so many replicas of one system."""
    runs = [
        result
        for result in results
        if "steps_per_s" in result.metrics
        and result.config["task"].get("replicas") == replicas
        and len(_systems(result)) == 1
        and _choice(result, "engine") in engines
        and _precision(result) in precisions
    ]
    if not runs:
        return None
    fastest = max(runs, key=lambda result: result.metrics["steps_per_s"])
    step_us = 1e6 / fastest.metrics["steps_per_s"]
    return Measured(step_us, step_us, step_us, label(fastest.config), timed_once=True)


def _speed(
    name: str,
    promised: str,
    limit: float,
    metric: str,
    precisions: tuple[str, ...],
    batch: int,
    engines: tuple[str, ...] = FAST,
) -> Target:
    return Target(name, promised, limit, False, partial(_best, metric, precisions, batch, engines=engines))


_compiled, _fused = partial(_speed, engines=COMPILED), partial(_speed, engines=FUSED)
PLAN = (
    _compiled("compiled, single structure, against eager", "1.3–1.5×", 1.3, "speedup_vs_baseline", FP32, 1),
    _compiled("compiled, batch 16, against eager", "1.4–1.6×", 1.4, "speedup_vs_baseline", FP32, 16),
    _compiled("FP16 against FP32, same engine, single structure", "1.5–1.8×", 1.5, "speedup_vs_fp32", LOW, 1),
    _compiled("FP16 against FP32, same engine, batch 16", "1.8–2.0×", 1.8, "speedup_vs_fp32", LOW, 16),
    Target("memory of FP16 against FP32, largest batch / %", "−30 to −50%", -30.0, True, partial(_memory, COMPILED)),
    Target("energy MAE of FP16 / %", "< 0.1%", MAX_ENERGY_ERROR_PERCENT, True,
         partial(_worst, "energy_relative_mae_vs_fp64_percent", LOW)),
    Target("force RMSE of FP16 / %", "< 1%", MAX_FORCE_ERROR_PERCENT, True,
         partial(_worst, "force_relative_rmse_vs_fp64_percent", LOW)),
    _compiled("compiled and FP16, single structure, against eager FP32", "2–3×", 2.0, "speedup_vs_baseline", LOW, 1),
    _compiled("the same in batches of 16, per structure, against single eager", "32–48×", 32.0,
              "speedup_vs_single_eager", LOW, 16),
    Target("NVE: drift of the total energy / %", "< 1%", 1.0, True, partial(_nve, "energy_drift_percent", 0.0)),
    Target("NVE: fluctuation of the total energy / %", "< 0.5%", 0.5, True,
         partial(_nve, "energy_fluctuation_percent", 0.0)),
    Target("NVE: mean temperature, distance from 300 K / K", "≤ 20 K", 20.0, True,
         partial(_nve, "temperature_mean_k", 300.0)),
    Target("NVE: largest change of a bond / Å", "no explosion", 0.5, True, partial(_nve, "max_bond_change_ang", 0.0)),
)  # fmt: skip

# For benzene and the shipped student on one H100.
TARGETS = (
    _speed("best FP32 engine, single structure, against eager", "≥ 30×", 30.0, "speedup_vs_baseline", FP32, 1),
    _speed("best FP32 engine, batch 16, against eager", "≥ 25×", 25.0, "speedup_vs_baseline", FP32, 16),
    Target("whole FP32 step, single structure / ms", "≤ 0.15 ms", 0.15, True,
         partial(_best, "latency_median_ms", FP32, 1, lowest=True)),
    Target("FP16, single structure / ms", "≤ 0.1 ms", 0.1, True,
         partial(_best, "latency_median_ms", LOW, 1, lowest=True)),
    Target("FP16, batch 16 / ms", "≤ 0.2 ms", 0.2, True, partial(_best, "latency_median_ms", LOW, 16, lowest=True)),
    _speed("FP16 against FP32, same engine, batch 1,024", "≥ 2.0×", 2.0, "speedup_vs_fp32", LOW, 1024),
    Target("memory of FP16 against FP32, largest batch / %", "≤ −50%", -50.0, True, partial(_memory, FAST)),
    _speed("best FP16 engine, single structure, against eager FP32", "≥ 40×", 40.0, "speedup_vs_baseline", LOW, 1),
    _speed("the same in batches of 16, per structure, against single eager", "≥ 600×", 600.0,
           "speedup_vs_single_eager", LOW, 16),
    Target("structures per second at the best batch", "≥ 500,000", 5e5, False,
         partial(_best, "throughput_systems_per_s", (*FP32, *LOW), None)),
    Target("energy MAE of FP16 / %", "≤ 0.01%", 0.01, True,
         partial(_worst, "energy_relative_mae_vs_fp64_percent", LOW)),
    Target("energy MAE of FP16 / (meV/atom)", "≤ 0.1", 0.1, True,
         partial(_worst, "energy_mae_vs_fp64_mev_per_atom", LOW)),
    Target("force RMSE of FP16 / %", "≤ 0.2%", 0.2, True, partial(_worst, "force_relative_rmse_vs_fp64_percent", LOW)),
    Target("NVE: slope of the energy / (meV/atom/ps)", "≤ 0.0065", 0.0065, True,
         partial(_nve, "energy_drift_mev_per_atom_per_ps", 0.0)),
    Target("NVE: step of three molecules, FP32 / µs", "≤ 150 µs: 100 ps in 30 s", 150.0, True,
         partial(_step_us, 3, FP32)),
    Target("NVE: step of 64 molecules, FP32 / µs", "≤ 600 µs: 100 ps in 120 s", 600.0, True,
         partial(_step_us, 64, FP32)),
)  # fmt: skip

FUSED_TARGETS = (
    Target("NVE: step of one molecule, FP32 / µs", "≤ 80 µs: 100 ps in 16 s", 80.0, True,
         partial(_step_us, 1, FP32, engines=FUSED)),
    Target("NVE: step of one molecule, FP16 / µs", "≤ 60 µs: 100 ps in 12 s", 60.0, True,
         partial(_step_us, 1, LOW, engines=FUSED)),
    Target("NVE: step of 132 molecules, FP16 / µs", "≤ 125 µs: 100 ps in 25 s", 125.0, True,
         partial(_step_us, 132, LOW, engines=FUSED)),
    Target("structures per second at the best batch", "≥ 2,000,000", 2e6, False,
         partial(_best, "throughput_systems_per_s", (*FP32, *LOW), None, engines=FUSED)),
    *(_fused(f"fused against cuda_graph, {name}, batch {size:,}", "≥ 2×", 2.0, "speedup_vs_cuda_graph",
             precisions, size)
      for name, precisions in (("FP16", LOW), ("FP32", FP32)) for size in (1, 16, 1024)),
)  # fmt: skip
