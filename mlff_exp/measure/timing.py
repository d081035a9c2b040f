"""Time calls in alternating blocks, and compute statistics of the samples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mlff_exp.common import progress_bar
from mlff_exp.results import PLANTED, Estimate, Timing

MIN_ROUNDS, MAX_ROUNDS = 20, 50
NEGLIGIBLE = 0.01  # a difference of one percent is ignored even if it is significant
MAX_WARMUP_CALLS = 200
WARMUP_WINDOW, WARMUP_TOLERANCE = 5, 0.1
LEAD_IN_CALLS, LEAD_IN_S = 5, 0.005
CONFIDENCE = 0.95
CONTROL_CONFIDENCE = 0.999
RESAMPLES = 20_000  # enough for the ends of a 99.9% interval


@dataclass(frozen=True)
class Candidate:
    """Something to time.

    Attributes:
        call: does the work once; two calls in succession get different inputs.
        min_calls: least number of samples.
        min_time_s: least time to measure for, s.
        max_time_s: about the longest time to measure for, s: after it, fewer calls are enough, but never fewer than the
            rounds that an interval needs.
        planted: delay before each call, as a fraction of the time of a call of the first candidate.
    """

    call: Callable[[], object]
    min_calls: int
    min_time_s: float
    max_time_s: float = np.inf
    planted: float = 0.0


@dataclass(frozen=True)
class Controls:
    """Measured ratios whose true values are known.

    Attributes:
        same: time of a candidate over its own time; the truth is 1.
        slower: time of a candidate with a planted delay over its own time; the truth is 1 + `PLANTED`.
    """

    same: Estimate
    slower: Estimate

    @property
    def faults(self) -> list[str]:
        """The controls whose measured ratio is wrong, as text."""
        found = []
        if not self.same.low <= 1 <= self.same.high and abs(self.same.value - 1) > NEGLIGIBLE:
            found.append(f"the same engine timed twice differs by {_percent(self.same)}")
        if self.slower.low <= 1 or abs(self.slower.value - 1 - PLANTED) > PLANTED / 2:
            found.append(f"an engine {PLANTED:.0%} slower was measured as {_percent(self.slower)}")
        return found


def _percent(ratio: Estimate) -> str:
    low, value, high = (100 * (number - 1) for number in (ratio.low, ratio.value, ratio.high))
    return f"{value:+.1f}% [{low:+.1f}, {high:+.1f}]"


def make_controls(candidate: Candidate) -> dict[str, Candidate]:
    """Return two controls of a candidate, to be timed in alternation with it."""
    return {"control_same": candidate, "control_slower": replace(candidate, planted=PLANTED)}


def judge_controls(timing: Mapping[str, Timing], of: str) -> Controls:
    """Compare the timed controls of `make_controls` with their known ratios.

    Each run has two controls that may fail by chance, so that their intervals have 99.9% confidence.

    Args:
        timing: samples by name.
        of: the name of the candidate.
    """
    same, slower = (
        time_ratio(timing[name], timing[of], CONTROL_CONFIDENCE) for name in ("control_same", "control_slower")
    )
    return Controls(same, slower)


def measure_side_by_side(
    candidates: Mapping[str, Candidate],
    device: torch.device,
    description: str = "timing",
    between: Callable[[], object] | None = None,
) -> dict[str, Timing]:
    """Time candidates in alternating blocks: the first, another, the first again, a third, and so on.

    The speed of a machine drifts by ten percent or more if it is shared, but hardly within some milliseconds. Each
    block of another candidate has a block of the first one before and after it, so that their ratio is not affected.

    Every call is timed alone, from an idle device to the end of the call: by the wall clock, and on CUDA by device
        events,
    whose times are used there. The first call and the warm-up, which lasts until the times are stable, are stored
    separately.

    Args:
        candidates: by name. The others are compared with the first.
        device: where the candidates run.
        description: text of the progress bar.
        between: called after each round of blocks, to sample the machine.

    Returns:
        Raw samples by candidate.
    """
    clock: _WallClock | _DeviceClock = _DeviceClock() if device.type == "cuda" else _WallClock()
    reference, *others = candidates
    turns = [name for other in others for name in (reference, other)] or [reference]
    first, warmup, wanted = {}, {}, {}
    for name, candidate in candidates.items():
        started = time.perf_counter()
        candidate.call()
        clock.synchronize()
        first[name] = time.perf_counter() - started
        warmup[name] = _warm_up(candidate.call, clock)
        typical_s = max(float(np.median(warmup[name][-WARMUP_WINDOW:])) / 1000, 1e-9)
        most = candidate.max_time_s / typical_s
        wanted[name] = math.ceil(max(min(candidate.min_calls, most), candidate.min_time_s / typical_s))
    rounds = min(max(MIN_ROUNDS, min(wanted.values())), MAX_ROUNDS)
    per_block = {name: -(-wanted[name] // (rounds * turns.count(name))) for name in candidates}

    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    done = 0
    with progress_bar(total=rounds, desc=description, unit="round", leave=False) as bar:
        # More rounds where the warm-up was slower than what came after it, up to twice as many.
        while done < rounds or (
            done < 2 * rounds and not all(_enough(candidates[name], samples[name]) for name in turns)
        ):
            for name in turns:
                candidate = candidates[name]
                planted_ms = candidate.planted and candidate.planted * _typical_ms(samples[reference])
                _lead_in(candidate.call, clock)
                samples[name] += [clock.time_ms(candidate.call, planted_ms) for _ in range(per_block[name])]
            if between is not None:
                between()
            done += 1
            bar.update()
    timings = {}
    for name, pairs in samples.items():
        values, wall = zip(*pairs, strict=True)
        own = tuple(turn for turn in range(done * len(turns)) if turns[turn % len(turns)] == name)
        timings[name] = Timing(values, tuple(warmup[name]), first[name], (per_block[name],) * len(own), wall, own)
    return timings


def median_ms(timing: Timing) -> float:
    """Return the median of the samples, ms."""
    return float(np.median(timing.values_ms))


def p95_ms(timing: Timing) -> float:
    """Return the 95th percentile of the samples, ms."""
    return float(np.percentile(timing.values_ms, 95))


def mad_ms(timing: Timing) -> float:
    """Return the median absolute deviation from the median, ms."""
    values = np.asarray(timing.values_ms)
    return float(np.median(np.abs(values - np.median(values))))


def median_interval_ms(timing: Timing) -> tuple[float, float]:
    """Return a bootstrap interval of the median, ms; it resamples parts, as neighbouring samples are correlated."""
    n_parts = min(MAX_ROUNDS, len(timing.blocks))
    values = np.asarray(timing.values_ms)
    parts = values[: len(values) // n_parts * n_parts].reshape(n_parts, -1)

    def median(chosen: npt.NDArray[np.int64], axis: int) -> npt.NDArray[np.float64]:
        """Median of all samples of the chosen parts."""
        return np.asarray(np.median(parts[chosen].reshape(*chosen.shape[:-1], -1), axis=-1))

    # Each draw uses all samples. There are fewer draws than usual, in small batches, to bound time and memory.
    return _bootstrap(np.arange(n_parts), CONFIDENCE, median, 1000, batch=max(1, 2_000_000 // len(values)))


def wall_median_ms(timing: Timing) -> float:
    """Return the median of the host's waiting time for a call, ms."""
    return float(np.median(timing.wall_ms))


def time_ratio(numerator: Timing, denominator: Timing, confidence: float = CONFIDENCE) -> Estimate:
    """Estimate how many times longer ``numerator`` takes than ``denominator``, from ratios of neighbouring blocks.

    The estimate is the median of the ratios, and its interval resamples them. Each block of the timing with fewer
    blocks is compared with the blocks of the other before and after it. A ratio of two medians would include
    disturbances of one of them.
    """
    above, below = _block_medians(numerator), _block_medians(denominator)
    distance = np.abs(np.subtract.outer(_turns(numerator), _turns(denominator)))
    ratios = above / _nearest(below, distance) if len(above) <= len(below) else _nearest(above, distance.T) / below
    low, high = _bootstrap(ratios, confidence)
    return Estimate(float(np.median(ratios)), low, high)


def _nearest(medians: npt.NDArray[np.float64], distance: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the mean of the nearest medians for each row of ``distance``, [n_blocks, n_medians]."""
    nearest = distance == distance.min(axis=1, keepdims=True)
    return np.asarray((nearest @ medians) / nearest.sum(axis=1))


def _bootstrap(
    values: npt.NDArray[Any],
    confidence: float,
    statistic: Callable[..., npt.NDArray[np.float64]] = np.median,
    n_resamples: int = RESAMPLES,
    batch: int = RESAMPLES,
) -> tuple[float, float]:
    """Return the percentile interval of a statistic (Efron 1981), from ``batch`` resamples at a time.

    SciPy has the same function, but importing its statistics takes longer than most of the timings here.
    """
    rng, resampled = np.random.default_rng(0), []
    for done in range(0, n_resamples, batch):
        drawn = rng.integers(0, len(values), (min(batch, n_resamples - done), len(values)))
        resampled.append(statistic(values[drawn], axis=-1))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(np.concatenate(resampled), [tail, 100 - tail])
    return float(low), float(high)


def _blocks(timing: Timing) -> list[npt.NDArray[np.float64]]:
    return np.split(np.asarray(timing.values_ms), np.cumsum(timing.blocks)[:-1])


def _block_medians(timing: Timing) -> npt.NDArray[np.float64]:
    return np.array([np.median(block) for block in _blocks(timing)])


def _turns(timing: Timing) -> npt.NDArray[np.int64]:
    return np.array(timing.turns or range(len(timing.blocks)))


def _warm_up(call: Callable[[], object], clock: _WallClock | _DeviceClock) -> list[float]:
    """Call until the medians of the last two windows agree, and return the times in ms."""
    times: list[float] = []
    while len(times) < MAX_WARMUP_CALLS:
        times.append(clock.time_ms(call)[0])
        if len(times) >= 2 * WARMUP_WINDOW:
            now = np.median(times[-WARMUP_WINDOW:])
            before = np.median(times[-2 * WARMUP_WINDOW : -WARMUP_WINDOW])
            if abs(now - before) <= WARMUP_TOLERANCE * before:
                break
    return times


def _typical_ms(samples: list[tuple[float, float]]) -> float:
    return float(np.median([value for value, _ in samples]))


def _enough(candidate: Candidate, samples: list[tuple[float, float]]) -> bool:
    seconds = sum(ms for ms, _ in samples) / 1000
    return seconds >= candidate.max_time_s or (len(samples) >= candidate.min_calls and seconds >= candidate.min_time_s)


def _lead_in(call: Callable[[], object], clock: _WallClock | _DeviceClock) -> None:
    """Make some untimed calls: the previous candidate has filled the caches with its own data and code."""
    end = time.perf_counter() + LEAD_IN_S
    for _ in range(LEAD_IN_CALLS):
        call()
        clock.synchronize()
        if time.perf_counter() > end:
            break


def _spin(ms: float) -> None:
    """Wait on the host without sleeping, because a sleeping thread wakes up late."""
    end = time.perf_counter_ns() + 1e6 * ms
    while time.perf_counter_ns() < end:
        pass


class _WallClock:
    def synchronize(self) -> None:
        pass

    def time_ms(self, call: Callable[[], object], planted_ms: float = 0.0) -> tuple[float, float]:
        started = time.perf_counter_ns()
        _spin(planted_ms)
        call()
        elapsed = (time.perf_counter_ns() - started) / 1e6
        return elapsed, elapsed


class _DeviceClock:
    def __init__(self) -> None:
        self.start = torch.cuda.Event(enable_timing=True)
        self.end = torch.cuda.Event(enable_timing=True)

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def time_ms(self, call: Callable[[], object], planted_ms: float = 0.0) -> tuple[float, float]:
        started = time.perf_counter_ns()
        self.start.record()
        # The delay comes before the call, while the device is idle; later, host and device would hide a part of it.
        _spin(planted_ms)
        call()
        self.end.record()
        self.end.synchronize()
        wall = (time.perf_counter_ns() - started) / 1e6
        return float(self.start.elapsed_time(self.end)), wall
