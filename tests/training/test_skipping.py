"""A step whose loss or gradient isn't finite: where the recipe says skip, the run is as if the step weren't there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from data import Batch
from experiments.resrep_callback import ResRepCallback
from rr.errors import InputError
from tests.forked import run_ranks
from tests.rr.pruners import tiny_pruner
from tests.training import tiny_run
from tests.training.pruning_state import state_of
from tests.training.tiny_run import PoisonAt, StepSum, metrics_without_times, run, tiny_recipe
from training import Callback, NonFiniteLoss, TrainState, checkpoint_files, skipping
from training.skipping import CarefulSteps

pytestmark = pytest.mark.usefixtures("one_thread")


def finish(folder: Path) -> dict:
    return checkpoint_files.load(folder / "finish.pth")


def assert_same_network(one: dict, other: dict) -> None:
    """Weights, BN's statistics and momentum, to the last bit."""
    states = [saved["optimizer"]["state"] for saved in (one, other)]
    momenta = [{key: value["momentum_buffer"] for key, value in state.items()} for state in states]
    for first, second in ((one["model"], other["model"]), momenta):
        assert first.keys() == second.keys()
        assert all(torch.equal(value, second[key]) for key, value in first.items())


class Undo(Callback):
    """Lets a step be taken, and puts the network and the optimiser back to what they were before it."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, state: TrainState) -> None:
        optimizer = state.optimizer
        if state.step == self.step - 1:
            self.kept = copy.deepcopy((state.model.state_dict(), optimizer.state_dict()["state"]))
        elif state.step == self.step:
            model, momenta = self.kept
            state.model.load_state_dict(model)
            optimizer.load_state_dict({**optimizer.state_dict(), "state": momenta})  # its rates are the schedule's


class GradientAt(Callback):
    """Makes a step's gradient infinite, of one weight, where its loss is finite."""

    def __init__(self, step: int) -> None:
        self.step, self.handle = step, None

    def after_step(self, state: TrainState) -> None:
        if state.step == self.step - 1:
            self.handle = state.model.fc.weight.register_hook(lambda gradient: gradient * float("inf"))
        elif state.step == self.step:
            self.handle.remove()


@pytest.mark.slow
@pytest.mark.parametrize("breaks", [PoisonAt, GradientAt])
def test_a_skipped_step_changes_nothing_and_is_counted(tmp_path: Path, breaks: Callable[[int], Callback]) -> None:
    settings = {"non_finite_loss": "skip"}
    run(tiny_recipe(tmp_path / "skips", **settings), "dropout", [breaks(10)])
    run(tiny_recipe(tmp_path / "undone"), "dropout", [Undo(10)])
    skips, undone = finish(tmp_path / "skips"), finish(tmp_path / "undone")
    assert_same_network(skips, undone)
    assert skips["scheduler"] == undone["scheduler"]
    assert skips["skipped"] == {"steps": 1, "in_a_row": 0}
    lines = metrics_without_times(tmp_path / "skips")
    assert [line["skipped_steps"] for line in lines[1:]] == [0, 1, 1]  # after each epoch
    assert [line["train"]["num"] for line in lines if "train" in line] == [50, 43, 50]  # 7 images weren't trained on
    assert "step 10 is left out" in (tmp_path / "skips" / "log.txt").read_text()


def test_where_all_is_finite_nothing_is_skipped_and_the_bits_are_the_same(tmp_path: Path) -> None:
    run(tiny_recipe(tmp_path / "skips", non_finite_loss="skip"), "dropout")
    run(tiny_recipe(tmp_path / "stops"), "dropout")
    assert_same_network(finish(tmp_path / "skips"), finish(tmp_path / "stops"))
    assert finish(tmp_path / "skips")["skipped"] == {"steps": 0, "in_a_row": 0}


class Stop(Exception):
    pass


class StopAt(Callback):
    def after_step(self, state: TrainState) -> None:
        if state.step == 12:
            raise Stop


@pytest.mark.slow
def test_a_run_that_goes_on_keeps_the_count(tmp_path: Path) -> None:
    """It is stopped between two steps that are left out, and its last checkpoint is right behind the first of them."""
    whole, stopped = (tmp_path / name for name in ("whole", "stopped"))
    settings = {"non_finite_loss": "skip", "checkpoint_interval": 1}
    breaks = [PoisonAt(11, 12, 13)]
    run(tiny_recipe(whole, **settings), "dropout", breaks)
    with pytest.raises(Stop):
        run(tiny_recipe(stopped, **settings), "dropout", [*breaks, StopAt()])
    assert checkpoint_files.load(stopped / "latest.pth")["skipped"] == {"steps": 1, "in_a_row": 1}
    run(tiny_recipe(stopped, **settings), "dropout", [*breaks, Callback()], "continue")
    assert_same_network(finish(whole), finish(stopped))
    assert finish(whole)["skipped"] == finish(stopped)["skipped"] == {"steps": 3, "in_a_row": 0}
    assert metrics_without_times(whole) == metrics_without_times(stopped)


@pytest.mark.slow
def test_a_run_that_a_loss_has_stopped_goes_on_with_skip(tmp_path: Path) -> None:
    settings = {"checkpoint_interval": 1}
    with pytest.raises(NonFiniteLoss):
        run(tiny_recipe(tmp_path / "run", **settings), "dropout", [PoisonAt(10)])
    run(tiny_recipe(tmp_path / "run", non_finite_loss="skip", **settings), "dropout", [PoisonAt(10)], "continue")
    run(tiny_recipe(tmp_path / "skips", non_finite_loss="skip"), "dropout", [PoisonAt(10)])
    assert_same_network(finish(tmp_path / "run"), finish(tmp_path / "skips"))


def test_too_many_in_a_row_stop_the_run_and_the_weights_are_whole(tmp_path: Path) -> None:
    """A whole epoch of 7 steps is among them, of which there is nothing to say."""
    with pytest.raises(NonFiniteLoss, match=r"isn't finite in 10 steps in a row, up to step 15 .*: lower --lr"):
        run(tiny_recipe(tmp_path, non_finite_loss="skip"), "dropout", [PoisonAt(*range(6, 22))])
    saved, lines = checkpoint_files.load(tmp_path / "latest.pth"), metrics_without_times(tmp_path)
    assert (saved["step"], saved["skipped"]) == (14, {"steps": 9, "in_a_row": 9})
    assert all(value.isfinite().all() for value in saved["model"].values())
    assert [("train" in line, line["skipped_steps"]) for line in lines[-2:]] == [(True, 2), (False, 9)]


def test_recorded_steps_cannot_be_skipped() -> None:
    with pytest.raises(InputError, match=r"non_finite_loss is 'skip': .* leave --cuda-graph out"):
        tiny_recipe("nowhere", non_finite_loss="skip", cuda_graph=True)


def test_the_pruner_counts_no_step_and_does_nothing_twice() -> None:
    pruner = tiny_pruner(narrow="full", mask_interval=2, warmup_steps=0)
    state, callback = state_of(pruner, "cpu", non_finite_loss="skip"), ResRepCallback(pruner)
    step = CarefulSteps(state)

    def after(images: torch.Tensor) -> None:
        step(Batch(images, torch.zeros(8, dtype=torch.int64), 8))
        state.step += 1
        callback.after_step(state)

    good, bad = torch.rand(8, 1, 8, 8), torch.full((8, 1, 8, 8), float("nan"))
    while pruner.steps < 2:
        after(good)
    assert pruner.masks_are_due()
    kept = {name: value.clone() for name, value in pruner.model.state_dict().items()}
    masked, narrowed = pruner.unmasked.widths, []
    pruner.narrow = lambda: narrowed.append(state.step) or 0
    after(bad)
    assert (pruner.steps, state.step, state.skipped, narrowed) == (2, 3, 1, [])
    assert pruner.unmasked.widths == masked
    assert all(torch.equal(value, kept[name]) for name, value in pruner.model.state_dict().items())
    after(good)
    after(good)
    assert (pruner.steps, narrowed) == (4, [5])  # the masks' next time comes a step later in the run


def test_a_step_that_is_bad_on_another_process_is_left_out_here_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss can be infinite where its gradient isn't, so DDP's gradients don't tell."""
    monkeypatch.setattr(skipping, "all_reduce_min", lambda world, flag: torch.zeros_like(flag))
    model, _ = run(tiny_recipe(tmp_path, non_finite_loss="skip", max_steps=3))
    first = torch.load(tmp_path / "init.hdf5", weights_only=True)
    assert finish(tmp_path)["skipped"] == {"steps": 3, "in_a_row": 3}
    assert all(torch.equal(value, first[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_of_two_processes_one_bad_part_leaves_the_step_out_on_both(tmp_path: Path) -> None:
    """Rank 1's part of a batch isn't finite. Without BN two processes take the steps of one, this one left out."""
    words = ("--non-finite-loss", "skip", "--poison-at", "10", "--of-rank", "1")
    done = run_ranks(2, "-m", tiny_run.__name__, "--output-dir", tmp_path / "two", *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "two" / "log.txt").read_text().count("step 10 is left out") == 1
    run(tiny_recipe(tmp_path / "one", non_finite_loss="skip"), callbacks=[StepSum(), PoisonAt(10)])
    one, two = finish(tmp_path / "one"), finish(tmp_path / "two")
    for name, value in one["model"].items():
        assert torch.allclose(value, two["model"][name], rtol=0, atol=1e-12), name
    assert one["skipped"] == two["skipped"] == {"steps": 1, "in_a_row": 0}
