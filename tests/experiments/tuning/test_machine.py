"""What may be chosen on a machine, when, and what becomes of the choice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from data import load_data
from experiments.call import Call
from experiments.recipes import base_recipe, fast_recipe
from experiments.tuning import MachineSetting, StepTime, is_worth_it, machine, tuned, with_stored_choice
from experiments.tuning.workers import TimingFailed
from training import Recipe

RECIPE = fast_recipe("src20", "digits")
OWN = Call(is_papers=False)


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)


def test_processes_and_threads_share_the_cores_and_each_has_images_for_batch_norm() -> None:
    freedom = machine.freedom_of(RECIPE, OWN)
    assert freedom.processes == (1, 2, 4, 8)
    assert all(count * threads <= 8 for count, those in freedom.threads.items() for threads in those)
    small = machine.freedom_of(replace(RECIPE, batch_size=48), OWN)
    assert small.processes == (1, 2, 3)  # 16 images each


def test_what_is_typed_stays() -> None:
    recipe = replace(RECIPE, processes=2, threads=3, amp=False, channels_last=False, compile=True)
    typed = frozenset({"processes", "threads", "amp", "channels_last", "compile"})
    freedom = machine.freedom_of(recipe, replace(OWN, typed=typed))
    assert (freedom.processes, freedom.threads) == ((2,), {2: (3,)})
    assert (freedom.amp, freedom.channels_last, freedom.compile) == ((False,), (False,), (True,))


def test_the_papers_precision_stays() -> None:
    assert machine.freedom_of(RECIPE, OWN).amp == (False, True)
    assert machine.freedom_of(RECIPE, Call(is_papers=True)).amp == (False,)


def test_only_runs_of_minutes_are_worth_it() -> None:
    """src20 on 32 x 32 images: 40.8 million MACs, 245 million operations for an image's training step."""
    data = load_data("digits", None, 32, None)  # 1,438 training images
    recipe = base_recipe("src20", "digits")
    steps = -(-1438 // recipe.batch_size)  # an epoch
    enough = machine.LEAST_FLOPS / (6 * 40.8e6 * recipe.batch_size * steps)
    assert is_worth_it(replace(recipe, epochs=round(1.05 * enough)), data)
    assert not is_worth_it(replace(recipe, epochs=round(0.95 * enough)), data)
    assert not is_worth_it(replace(recipe, epochs=round(2 * enough), max_steps=100), data)


class Timed:
    """Stands for the worker processes: two of them are best, and one setting takes too long."""

    alive = 0
    fails = ()

    def __init__(self, trainee: object, processes: int) -> None:
        if processes in self.fails:
            raise TimingFailed("no memory")
        Timed.alive += 1

    def timed(self, setting: MachineSetting, most_seconds: float) -> StepTime:
        if setting.threads == 8:
            raise TimingFailed("too slow")
        return StepTime(1.0, abs(setting.processes - 2) + 1.0 + setting.amp)

    def close(self) -> None:
        Timed.alive -= 1


def tune(monkeypatch: pytest.MonkeyPatch, fails: tuple[int, ...] = (), threads: int = 8) -> Recipe:
    monkeypatch.setattr(machine, "Workers", Timed)
    monkeypatch.setattr(Timed, "fails", fails)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found = tuned(RECIPE, None, load_data("digits", None, 32, None), OWN)
    assert Timed.alive == 0
    return found


def test_the_choice_is_in_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    found = tune(monkeypatch, threads=4)
    assert (found.processes, found.threads, found.amp) == (2, 2, False)
    assert replace(found, processes=None, threads=None) == RECIPE
    assert machine.in_words(found) == "2 processes of 2 threads, float32, channels-last"
    assert machine.in_words(RECIPE) is None


def test_what_fails_is_left_out_and_a_run_that_cannot_be_timed_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tune(monkeypatch, fails=(2,), threads=4).processes == 1
    assert tune(monkeypatch, threads=8).threads < 8  # with all of them a step takes too long
    assert tune(monkeypatch, fails=(1,)) == RECIPE


def test_a_run_that_goes_on_keeps_its_choice() -> None:
    stored = {"tune": True, "processes": 2, "threads": 1, "amp": True, "channels_last": False, "lr": 5.0}
    found = with_stored_choice(RECIPE, stored, OWN)
    assert (found.processes, found.threads, found.amp, found.channels_last, found.lr) == (2, 1, True, False, RECIPE.lr)
    typed = with_stored_choice(RECIPE, stored, replace(OWN, typed=frozenset({"amp"})))
    assert (typed.processes, typed.amp) == (2, RECIPE.amp)
    for none in (None, {**stored, "tune": False}, {}):
        assert with_stored_choice(RECIPE, none, OWN) == RECIPE
