"""Judge the runs of a sweep by targets, such as the promises of a plan. The targets are read from files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mlff_exp.report.validity import Results, choice, force_field, systems_of
from mlff_exp.results import METRICS, Estimate, RunResult, find_metric, label

TIMED_UNITS = ("ms", "s", "1/s", "×")  # of metrics that a disturbed timing spoils


@dataclass(frozen=True)
class Where:
    """Selects the runs of a target; an empty selector selects all.

    Attributes:
        task, model, engine, mode, precision: names as in the configuration; a model is named by its checkpoint.
        system: names of systems; a run that evaluates a labelled set instead is selected whatever they are.
        batch_size: any of these.
        min_batch_size: this or more.
        replicas: of an NVE run.
        n_systems: number of systems that move or are evaluated in one run.
        min_duration_ps: of an NVE run.
        dataset: labelled set of an accuracy run; other tasks are selected whatever it is.
        gpu: a part of the name of the GPU.
    """

    task: Sequence[str] = ()
    model: Sequence[str] = ()
    system: Sequence[str] = ()
    engine: Sequence[str] = ()
    mode: Sequence[str] = ()
    precision: Sequence[str] = ()
    batch_size: Sequence[int] = ()
    min_batch_size: int | None = None
    replicas: int | None = None
    n_systems: int | None = None
    min_duration_ps: float | None = None
    dataset: str | None = None
    gpu: str | None = None

    def selects(self, result: RunResult) -> bool:
        """Return whether a run is selected."""
        config, task = result.config, result.config["task"]
        words = {
            "task": str(task["name"]),
            "model": str(
                config["model"].get("checkpoint") or config["model"].get("factory") or config["model"]["name"]
            ),
            "engine": choice(result, "engine"),
            "mode": str(config["engine"].get("mode", "")),
            "precision": choice(result, "precision"),
        }
        of_system = bool(systems_of(result))
        return (
            all(not (wanted := getattr(self, name)) or word in wanted for name, word in words.items())
            and (not self.system or not of_system or systems_of(result) in [[{"name": name}] for name in self.system])
            and (not self.batch_size or config.get("batch_size") in self.batch_size)
            and (self.min_batch_size is None or config.get("batch_size", 0) >= self.min_batch_size)
            and (self.replicas is None or task.get("replicas") == self.replicas)
            and (self.n_systems is None or len(systems_of(result)) == self.n_systems)
            and (self.min_duration_ps is None or task.get("duration_ps", 0) >= self.min_duration_ps)
            and (self.dataset is None or task.get("dataset", self.dataset) == self.dataset)
            and (self.gpu is None or self.gpu in (result.environment.get("gpu") or ""))
        )


@dataclass(frozen=True)
class Target:
    """One promise.

    Attributes:
        name: of what is promised, with its unit.
        promised: the words of the source.
        metric: of the registry of metrics, or one of `DERIVED`.
        min, max: the limit; a target has one of them.
        choose: which of several runs is judged: the best, the worst, the first, or that of the largest batch.
        ideal: judge the distance of the metric from this.
        where: which runs.
    """

    name: str
    promised: str
    metric: str
    min: float | None = None
    max: float | None = None
    choose: Literal["best", "worst", "first", "largest_batch"] = "best"
    ideal: float | None = None
    where: Where = Where()

    def __post_init__(self) -> None:
        if (self.min is None) == (self.max is None):
            raise ValueError(f"target {self.name!r} needs one limit: min or max")
        if self.metric not in DERIVED and find_metric(self.metric) is None:
            legal = ", ".join([*DERIVED, *METRICS.names()])
            raise ValueError(f"target {self.name!r}: metric={self.metric} is not one of: {legal}")

    @property
    def limit(self) -> float:
        """The number that the metric must reach or not exceed."""
        limit = self.max if self.min is None else self.min
        assert limit is not None, "checked"
        return limit


@dataclass(frozen=True)
class TargetList:
    """Targets that a report shows under one heading.

    Attributes:
        title: the heading.
        targets: in order.
        about: which runs are looked at at all.
        prefer_system: of several systems this one is judged, or else the first.
        show: all targets, or those that were measured.
    """

    title: str
    targets: Sequence[Target]
    about: Where = Where()
    prefer_system: str | None = None
    show: Literal["all", "measured"] = "all"


@dataclass(frozen=True)
class Measured:
    """A number with its interval, the run that it comes from, and whether its timing can be trusted.

    Attributes:
        timed_once: a time without an interval, and without controls.
    """

    number: Estimate
    run: str
    trusted: bool = True
    timed_once: bool = False


@dataclass(frozen=True)
class JudgedTarget:
    """A target with its measured value; ``held`` is None if there is no value, or no trusted one."""

    line: Target
    measured: Measured | None
    held: bool | None


def judge_targets(results: Results, listed: TargetList) -> list[JudgedTarget]:
    """Judge the results of the first force field, on one system, by every target of a list.

    With an interval, its unfavourable end counts. The validation set is of no system, and counts for each.

    Args:
        results: of a sweep.
        listed: targets, and which results they are about.
    """
    results = [result for result in results if listed.about.selects(result)]
    results = [result for result in results if result.config["model"] == results[0].config["model"]]
    systems = [found for result in results if (found := systems_of(result))]
    preferred = [{"name": listed.prefer_system}]
    one = preferred if preferred in systems else next(iter(systems), [])
    results = [result for result in results if systems_of(result) in ([], one)]
    return [_judged(target, results) for target in listed.targets]


def _judged(target: Target, results: Results) -> JudgedTarget:
    measured = _measured(target, results)
    held = None
    if measured is not None and measured.trusted:
        number = measured.number
        held = number.high <= target.limit if target.min is None else number.low >= target.limit
    return JudgedTarget(target, measured, held)


def _measured(target: Target, results: Results) -> Measured | None:
    """Return the value of the run that a target chooses; None if no run has one."""
    read = DERIVED.get(target.metric, _metric(target.metric))
    metric = find_metric(target.metric)
    timed = metric is not None and metric.unit in TIMED_UNITS
    found = [(run, number) for run in results if target.where.selects(run) and (number := read(run, results))]
    if target.ideal is not None:
        found = [(run, number.distance_from(target.ideal)) for run, number in found]
    if timed:
        found = [pair for pair in found if pair[0].trusted] or found
    if not found:
        return None
    sign = 1 if target.max is None else -1  # so that more is better
    keys: dict[str, Callable[[tuple[RunResult, Estimate]], tuple[float, ...]]] = {
        "best": lambda pair: (sign * pair[1].value,),
        "worst": lambda pair: (-sign * pair[1].value,),
        "first": lambda pair: (0.0,),
        "largest_batch": lambda pair: (pair[0].config.get("batch_size", 0), sign * pair[1].value),
    }
    run, number = max(found, key=keys[target.choose])
    return Measured(number, label(run.config), run.trusted or not timed, timed_once=target.metric == STEP_US)


def _metric(name: str) -> Callable[[RunResult, Results], Estimate | None]:
    def read(result: RunResult, _: Results) -> Estimate | None:
        return Estimate.from_metrics(name, result.metrics) if name in result.metrics else None

    return read


def _throughput(result: RunResult, _: Results) -> Estimate | None:
    """Return structures per second; the interval follows from that of the latency."""
    if THROUGHPUT not in result.metrics:
        return None
    value, latency = result.metrics[THROUGHPUT], Estimate.from_metrics("latency_median_ms", result.metrics)
    return Estimate(value, value * latency.value / latency.high, value * latency.value / latency.low)


def _step_us(result: RunResult, _: Results) -> Estimate | None:
    """Return the time of one step of a trajectory, µs."""
    return Estimate.exact(1e6 / result.metrics["steps_per_s"]) if "steps_per_s" in result.metrics else None


def _memory_change(result: RunResult, results: Results) -> Estimate | None:
    """Return the change of peak memory against FP32 of the same engine and batch, percent; None on a CPU."""
    metric = "peak_memory_mib"
    for full in results:
        same = (
            choice(full, "precision") == "fp32"
            and choice(full, "task") == choice(result, "task")
            and full.config.get("batch_size") == result.config.get("batch_size")
            and force_field(full)[:-1] == force_field(result)[:-1]
        )
        if same and metric in result.metrics and metric in full.metrics:
            return Estimate.exact(100 * (result.metrics[metric] / full.metrics[metric] - 1))
    return None


STEP_US, THROUGHPUT = "step_us", "throughput_systems_per_s"
# Quantities of a target that are computed from the metrics of a run.
DERIVED: Mapping[str, Callable[[RunResult, Results], Estimate | None]] = {
    STEP_US: _step_us,
    "peak_memory_change_vs_fp32_percent": _memory_change,
    THROUGHPUT: _throughput,
}
