"""Signals: outside of a run's steps at once, within them noted for the step's end; a second one at once."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

import pytest

from training import stopping
from training.stopping import StopRequests, Terminated


def come(number: int) -> None:
    """As another process would send it."""
    os.kill(os.getpid(), number)


NUMBERS = pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)]
)


def work(requests: StopRequests, *steps: Callable[[], object], held_back: bool = True) -> None:
    """Make the steps, where signals are requests."""
    with requests.received(), requests.held_back() if held_back else nullcontext():
        for step in steps:
            step()


@NUMBERS
def test_outside_of_steps_it_stops_at_once(number: int, error: type[BaseException]) -> None:
    done: list[str] = []
    with pytest.raises(error):
        work(StopRequests(), lambda: come(number), lambda: done.append("more"), held_back=False)
    assert not done


@NUMBERS
def test_within_steps_it_is_noted(number: int, error: type[BaseException]) -> None:
    requests, done = StopRequests(), []
    with pytest.raises(error):
        work(
            requests,
            lambda: come(number),
            lambda: done.append("the step"),
            lambda: come(signal.SIGTERM),  # a launcher passes on what the terminal has sent already
            lambda: done.append("the checkpoint"),
        )
    assert done == ["the step", "the checkpoint"]
    assert requests.number == number


def test_a_second_one_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, done = [0.0], []

    def later() -> None:
        now[0] = stopping.TOGETHER

    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    again = (lambda: come(signal.SIGTERM), lambda: done.append("more"))
    with pytest.raises(Terminated):
        work(StopRequests(), lambda: come(signal.SIGTERM), later, *again)
    assert not done


def test_handlers_are_put_back_and_old_requests_forgotten() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    requests, seen = StopRequests(), []
    for _ in range(2):
        with pytest.raises(Terminated):
            work(requests, lambda: seen.append(requests.number), lambda: come(signal.SIGTERM))
    assert seen == [None, None]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_an_ignored_interrupt_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequests().received():
            come(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_signal_by_its_name() -> None:
    requests, before = StopRequests(), signal.getsignal(signal.SIGUSR1)
    try:
        requests.listen_to("USR1")
        with pytest.raises(Terminated) as stopped:
            work(requests, lambda: come(signal.SIGUSR1))
        assert stopped.value.number == signal.SIGUSR1
    finally:
        signal.signal(signal.SIGUSR1, before)


class Freed:
    """Asks for an end as it is freed, where Python can raise nothing."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __del__(self) -> None:
        come(self._number)


@NUMBERS
def test_one_that_nothing_could_be_raised_for_stops_all_the_same(
    number: int, error: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    """A run went on to its end, after a traceback, where Ctrl-C came as an object was freed."""
    hook = sys.unraisablehook
    with pytest.raises(error):
        work(StopRequests(), lambda: Freed(number) and None, lambda: time.sleep(5), held_back=False)
    assert sys.unraisablehook is hook
    assert not capsys.readouterr().err
