"""A training step, the pruner's part in it included, never waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from data import Batch
from experiments.resrep_callback import ResRepCallback
from rr import ResRepPruner
from tests.devices import DEVICE
from tests.rr.pruners import tiny_pruner
from tests.training.pruning_state import RULES, state_of
from tests.training.reads import Watched, nothing_read_back
from training import TrainState
from training.meter import Meter
from training.step import take_step

DEVICES = sorted({DEVICE.type, "meta"})


def train_for(state: TrainState, callback: ResRepCallback, meter: Meter, batches: Iterator[Batch], steps: int) -> None:
    """Some steps, as the loop makes them."""
    for _, batch in zip(range(steps), batches, strict=False):
        sums = take_step(state, batch)
        state.scheduler.step()
        state.step += 1
        meter.add(sums, state.step)
        callback.after_step(state)


@pytest.mark.slow
@pytest.mark.device
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rule", list(RULES))
def test_a_step_reads_nothing_back(rule: str, device: str) -> None:
    pruner = tiny_pruner(narrow="full", **RULES[rule])
    state = state_of(pruner, device, accumulate=2, distill=0.5, label_smoothing=0.1)
    callback, meter = ResRepCallback(pruner), Meter(state.world)
    batches = state.data.train_batches(0, batch_size=8, seed=0, device=state.world.device)
    train_for(state, callback, meter, batches, 1)  # in the first one the pruner checks the loop, and the data is moved
    with nothing_read_back(state.world.device) as watched:
        train_for(state, callback, meter, batches, 3)
    assert pruner.steps == 4
    assert watched.copies == (0 if device == "cpu" else 3)  # the images' places and moves, once a step


def read_number(pruner: ResRepPruner) -> None:
    float(pruner.model[1].weight.detach().sum())


def ask_for_truth(pruner: ResRepPruner) -> None:
    assert pruner.model[1].weight.isfinite().all()


def compare(pruner: ResRepPruner) -> None:
    torch.equal(pruner.model[1].weight, pruner.model[1].weight)


def choose_by_mask(pruner: ResRepPruner) -> Tensor:
    weight = pruner.model[1].weight.detach()
    return weight[weight > 0]


def write_by_mask(pruner: ResRepPruner) -> None:
    weight = pruner.model[1].weight.detach()
    weight[weight > 2] = weight.sum()


@pytest.mark.parametrize("reading", [read_number, ask_for_truth, compare, choose_by_mask, write_by_mask])
def test_the_watch_sees_what_would_wait(reading: Callable[[ResRepPruner], object]) -> None:
    pruner = tiny_pruner()
    with Watched() as watched:
        reading(pruner)
    assert watched.waits
