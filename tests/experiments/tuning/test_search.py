"""The choice of processes, threads, precision and layout, by made-up times of steps."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.tuning import Freedom, MachineSetting, StepTime, choose

FREE = Freedom((1, 2, 4), {1: (4, 1), 2: (2, 1), 4: (1,)}, (False, True), (True, False), (False, True))
LONG = 10**6  # steps


def taking(
    processes: float = 1.0, thread: float = 1.0, amp: float = 1.0, channels_last: float = 1.0, compiled: float = 1.0
):
    """Times as products: each doubling of processes or threads, and each switch, has its factor."""

    def measure(setting: MachineSetting) -> StepTime:
        seconds = processes ** math.log2(setting.processes) * thread ** math.log2(setting.threads)
        seconds *= amp**setting.amp * channels_last**setting.channels_last * compiled**setting.compile
        return StepTime(10.0, seconds)

    return measure


def test_what_helps_is_chosen() -> None:
    found = choose(taking(processes=0.6, thread=0.8, amp=0.5, channels_last=0.7, compiled=0.6), FREE, LONG)
    assert found.setting == MachineSetting(4, 1, True, True, True)
    assert found.times[found.setting].later == min(time.later for time in found.times.values())


def test_what_harms_is_left() -> None:
    found = choose(taking(processes=1.1, thread=1.1, amp=1.1, channels_last=1.1, compiled=1.1), FREE, LONG)
    assert found.setting == MachineSetting(1, 1, False, False, False)


def test_other_numbers_are_taken_for_a_tenth_of_the_time_alone() -> None:
    found = choose(taking(processes=0.95, amp=0.95, channels_last=0.95), FREE, LONG)
    assert found.setting == MachineSetting(1, 4, False, True, False)
    found = choose(taking(processes=0.85, amp=0.85, channels_last=0.95), FREE, LONG)
    assert found.setting == MachineSetting(4, 1, True, True, False)


def test_compiling_is_tried_in_a_long_run_alone_and_must_pay() -> None:
    quick = taking(compiled=0.1)
    short = choose(quick, FREE, steps=20)
    assert not short.setting.compile
    assert not any(setting.compile for setting in short.times)
    assert choose(quick, FREE, steps=LONG).setting.compile
    assert not choose(lambda s: replace(quick(s), first=1e6), FREE, steps=LONG).setting.compile


def test_no_more_processes_are_tried_once_they_do_not_help() -> None:
    found = choose(taking(processes=1.2), FREE, LONG)
    assert {setting.processes for setting in found.times} == {1, 2}


def test_what_was_disturbed_once_is_timed_again() -> None:
    calls: dict[MachineSetting, int] = {}

    def measure(setting: MachineSetting) -> StepTime:
        calls[setting] = calls.get(setting, 0) + 1
        disturbed = 2.0 if setting.processes == 2 and calls[setting] == 1 else 1.0
        return StepTime(1.0, disturbed * 0.7 ** (setting.processes > 1))

    two = Freedom((1, 2), {1: (1,), 2: (1,)})
    assert choose(measure, two, LONG).setting.processes == 2
    assert max(calls.values()) <= 3


def test_a_setting_that_is_too_slow_is_not_chosen() -> None:
    slow = StepTime(math.inf, math.inf)
    found = choose(lambda setting: slow if setting.threads == 4 else StepTime(1.0, 1.0), FREE, LONG)
    assert found.setting.threads == 1


@given(
    *(st.floats(0.3, 1.5) for _ in range(5)),
    st.sampled_from([(1,), (2,), (1, 2)]),
    st.sampled_from([(False,), (True,), (False, True)]),
    st.sampled_from([(False,), (True,), (False, True)]),
    st.integers(1, LONG),
)
def test_what_was_given_stays_and_the_choice_is_no_worse_than_where_it_began(
    processes: float, thread: float, amp: float, last: float, compiled: float, counts, amps, compiles, steps: int
) -> None:
    freedom = Freedom(counts, {count: (2, 1) for count in counts}, amps, (True,), compiles)
    measure = taking(processes, thread, amp, last, compiled)
    setting = choose(measure, freedom, steps).setting
    assert setting.processes in counts
    assert setting.amp in amps
    assert setting.compile in compiles
    assert setting.channels_last
    first = MachineSetting(counts[0], 2, amps[0], True, setting.compile)
    assert measure(setting).later <= measure(first).later


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (MachineSetting(1, 1, False, False, False), "1 process of 1 thread, float32"),
        (MachineSetting(2, 4, True, True, True), "2 processes of 4 threads, bfloat16, channels-last, compiled"),
    ],
)
def test_settings_in_words(setting: MachineSetting, words: str) -> None:
    assert str(setting) == words
