"""A run's network is the mean of what its last steps left, with BN's statistics of that mean."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rr.settings import Share
from tests.training.tiny_run import run, tiny_data, tiny_recipe
from training import Callback, TrainState
from training.weight_average import BN_BATCHES, WeightAverage

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 21


class Weights(Callback):
    """What each step leaves, in float64."""

    def __init__(self) -> None:
        self.after: list[dict[str, torch.Tensor]] = []

    def after_step(self, state: TrainState) -> None:
        self.after.append({name: each.detach().double().clone() for name, each in state.model.named_parameters()})


class Narrower(Callback):
    """The network loses channels in mid-run, as a pruner takes them out: its parameters stay the same objects."""

    def after_step(self, state: TrainState) -> None:
        if state.step == 18:
            for each in (state.model.conv.weight, state.model.conv.bias):
                each.data = each.data[:4].clone()
            state.model.fc.weight.data = state.model.fc.weight.data[:, :4].clone()
            state.optimizer.state.clear()


def mean(steps: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([step[name] for step in steps]).mean(0) for name in steps[0]}


def assert_weights(model: nn.Module, expected: dict[str, torch.Tensor]) -> None:
    for name, each in model.named_parameters():
        torch.testing.assert_close(each.double(), expected[name], rtol=1e-6, atol=1e-7)


def test_the_network_is_the_mean_of_the_last_steps_but_for_what_stays(tmp_path: Path) -> None:
    seen, stays = Weights(), []

    class Chosen(Callback):
        def on_start(self, state: TrainState) -> None:
            stays.append(state.model.fc.bias)
            self.average = WeightAverage(Share(1 / 3), stays)

        def after_step(self, state: TrainState) -> None:
            self.average.after_step(state)

    model, result = run(tiny_recipe(tmp_path, lr=0.5), callbacks=[seen, Chosen()])
    assert result.steps == STEPS
    assert_weights(model, {**mean(seen.after[14:]), "fc.bias": seen.after[-1]["fc.bias"]})
    assert not torch.equal(model.fc.weight, seen.after[-1]["fc.weight"])
    written = torch.load(tmp_path / "finish.hdf5", weights_only=True)  # by the run, in tests
    assert torch.equal(written["fc.weight"], model.fc.weight)


def test_statistics_are_those_of_the_mean_on_the_training_images(tmp_path: Path) -> None:
    model, _ = run(tiny_recipe(tmp_path, lr=0.5, average_last=Share(0.5)), net="dropout")
    found: list[torch.Tensor] = []
    for batch in tiny_data().train_batches(2, batch_size=8, seed=0, device=torch.device("cpu")):
        found.append(model.conv(batch.images).transpose(0, 1).flatten(1))  # [channels, values]
    assert len(found) < BN_BATCHES
    means = torch.stack([values.mean(1) for values in found]).mean(0)
    variances = torch.stack([values.var(1) for values in found]).mean(0)
    torch.testing.assert_close(model.bn.running_mean, means, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.bn.running_var, variances, rtol=1e-5, atol=1e-6)


def test_a_network_that_gets_narrower_has_its_mean_begun_anew(tmp_path: Path) -> None:
    seen = Weights()
    model, _ = run(tiny_recipe(tmp_path, lr=0.5, average_last=Share(1 / 3)), callbacks=[Narrower(), seen])
    assert_weights(model, mean(seen.after[17:]))
