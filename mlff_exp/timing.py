"""Measure calls side by side, and what can be said of the samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import bootstrap
from tqdm import tqdm

from mlff_exp.result import Timing

N_BLOCKS = 20
MIN_WARMUP_CALLS, MAX_WARMUP_CALLS = 3, 200
WARMUP_WINDOW, WARMUP_TOLERANCE = 5, 0.1
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Candidate:
    """Something to time.

    Attributes:
        call: does the work once; given the number of the call, so that it can change the positions.
        min_calls: samples to take at least.
        min_time_s: time to measure for at least.
    """

    call: Callable[[int], object]
    min_calls: int
    min_time_s: float


@dataclass(frozen=True)
class Ratio:
    """Of two medians, with its bootstrap confidence interval."""

    value: float
    ci_low: float
    ci_high: float


def measure(
    candidates: Mapping[str, Candidate], device: torch.device, description: str = "timing"
) -> dict[str, Timing]:
    """Time several candidates in alternating blocks A B C A B C …, so that drift of the machine hits all alike.

    Every call is timed alone, from an idle device to its end, by device events on CUDA and the wall clock on a
    CPU. The first call and the warm-up, which lasts until the times are stable, are kept apart.

    Returns:
        Raw samples by candidate.
    """
    clock = _DeviceClock() if device.type == "cuda" else _WallClock()
    first, warmup, calls_per_block = {}, {}, {}
    for name, candidate in candidates.items():
        started = time.perf_counter()
        candidate.call(0)
        clock.synchronize()
        first[name] = time.perf_counter() - started
        warmup[name] = _warm_up(candidate.call, clock)
        typical_s = float(np.median(warmup[name][-WARMUP_WINDOW:])) / 1000
        calls = max(candidate.min_calls, candidate.min_time_s / max(typical_s, 1e-9))
        calls_per_block[name] = max(1, int(np.ceil(calls / N_BLOCKS)))

    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in tqdm(range(N_BLOCKS), desc=description, unit="block", leave=False):
        for name, candidate in candidates.items():
            # One untimed call, because the candidate before has filled the caches with its own data.
            candidate.call(len(samples[name]))
            for _ in range(calls_per_block[name]):
                number = len(samples[name])
                samples[name].append(clock.time_ms(candidate.call, number))
    return {
        name: Timing(tuple(values), tuple(warmup[name]), first[name], (calls_per_block[name],) * N_BLOCKS)
        for name, values in samples.items()
    }


def median_ms(timing: Timing) -> float:
    """Median of the samples, ms."""
    return float(np.median(timing.values_ms))


def p95_ms(timing: Timing) -> float:
    """95th percentile, ms."""
    return float(np.percentile(timing.values_ms, 95))


def mad_ms(timing: Timing) -> float:
    """Median absolute deviation from the median, ms."""
    values = np.asarray(timing.values_ms)
    return float(np.median(np.abs(values - np.median(values))))


def median_interval_ms(timing: Timing) -> tuple[float, float]:
    """Bootstrap interval of the median over blocks, ms."""
    blocks = _block_medians(timing)
    return _bootstrap((blocks,), lambda a, axis: np.median(a, axis=axis))


def ratio(numerator: Timing, denominator: Timing) -> Ratio:
    """How many times longer ``numerator`` takes than ``denominator``.

    The interval resamples pairs of neighbouring blocks, which keeps what the machine did to both in the pair.
    """
    blocks = (_block_medians(numerator), _block_medians(denominator))
    low, high = _bootstrap(blocks, lambda a, b, axis: np.median(a, axis=axis) / np.median(b, axis=axis))
    return Ratio(float(np.median(blocks[0]) / np.median(blocks[1])), low, high)


def _bootstrap(data: tuple[npt.NDArray[np.float64], ...], statistic: Callable[..., object]) -> tuple[float, float]:
    result = bootstrap(
        data,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=2000,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _block_medians(timing: Timing) -> npt.NDArray[np.float64]:
    ends = np.cumsum(timing.blocks)
    return np.array([np.median(block) for block in np.split(np.asarray(timing.values_ms), ends[:-1])])


def _warm_up(call: Callable[[int], object], clock: _WallClock | _DeviceClock) -> list[float]:
    """Call until the medians of the last two windows agree."""
    times: list[float] = []
    while len(times) < MAX_WARMUP_CALLS:
        times.append(clock.time_ms(call, len(times)))
        if len(times) >= max(MIN_WARMUP_CALLS, 2 * WARMUP_WINDOW):
            now = np.median(times[-WARMUP_WINDOW:])
            before = np.median(times[-2 * WARMUP_WINDOW : -WARMUP_WINDOW])
            if abs(now - before) <= WARMUP_TOLERANCE * before:
                break
    return times


class _WallClock:
    def synchronize(self) -> None:
        pass

    def time_ms(self, call: Callable[[int], object], number: int) -> float:
        started = time.perf_counter_ns()
        call(number)
        return (time.perf_counter_ns() - started) / 1e6


class _DeviceClock:
    def __init__(self) -> None:
        self.start = torch.cuda.Event(enable_timing=True)
        self.end = torch.cuda.Event(enable_timing=True)

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def time_ms(self, call: Callable[[int], object], number: int) -> float:
        self.start.record()
        call(number)
        self.end.record()
        self.end.synchronize()
        return float(self.start.elapsed_time(self.end))
