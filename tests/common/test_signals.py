"""A command is ended once, and what it has found is recorded first."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from mlff_exp.cli.boundary import command_boundary
from mlff_exp.common.signals import HungUp, Terminated, interrupts_postponed, raise_on_signals

ENDED_BY = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated), (signal.SIGHUP, HungUp)]


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """A shell starts what it puts into the background deaf to interrupts, and ``nohup`` to SIGHUP."""
    handlers: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGTERM: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "error"), ENDED_BY)
@pytest.mark.parametrize("postponed", [False, True])
@pytest.mark.parametrize("again", [number for number, _ in ENDED_BY])
def test_a_second_signal_does_not_disturb_the_clean_up(
    number: signal.Signals, error: type[BaseException], again: signal.Signals, *, postponed: bool
) -> None:
    recorded = False
    before = [signal.getsignal(one) for one, _ in ENDED_BY]
    with pytest.raises(KeyboardInterrupt) as caught, raise_on_signals():  # noqa: PT012 (a whole command)
        try:
            signal.raise_signal(number)
        finally:
            with interrupts_postponed() if postponed else nullcontext():
                signal.raise_signal(again)
            recorded = True
    assert caught.type is error
    assert recorded
    assert [signal.getsignal(one) for one, _ in ENDED_BY] == before


@pytest.mark.parametrize(("number", "error"), ENDED_BY)
def test_a_postponed_signal_is_raised_after_the_block(number: signal.Signals, error: type[BaseException]) -> None:
    steps = []
    with pytest.raises(error), raise_on_signals():  # noqa: PT012 (the order of what happens is what is tested)
        with interrupts_postponed():
            signal.raise_signal(number)
            steps.append("inside")
        steps.append("after")
    assert steps == ["inside"]


@pytest.mark.parametrize("block", ["raise_on_signals", "interrupts_postponed"])
def test_the_third_interrupt_kills(block: str) -> None:
    code = f"""
import signal, sys
from mlff_exp.common import {block}
with {block}():
    for n in range(3):
        try:
            print(n, flush=True)
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pass
print("still there")
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == -signal.SIGINT
    assert finished.stdout == "0\n1\n2\n"


def test_ignored_signals_stay_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with raise_on_signals(), interrupts_postponed():
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize(("number", "code", "how"), [
    (signal.SIGHUP, 129, "hung up"), (signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"),
])  # fmt: skip
def test_every_command_ends_with_the_number_of_its_signal(
    capsys: pytest.CaptureFixture[str], number: signal.Signals, code: int, how: str
) -> None:
    with pytest.raises(SystemExit) as ended, command_boundary("mlff-exp-report"):
        signal.raise_signal(number)
    signal.raise_signal(number)  # while Python cleans up
    assert ended.value.code == code
    assert capsys.readouterr().err.startswith(f"\nmlff-exp-report: {how}; what had finished is recorded\n")
