"""The mean of a network's weights over the end of a run, which the network gets after its last step."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_swa_multi_avg_fn, update_bn

from rr.settings import Share
from training.callback import Callback, TrainState
from training.step import memory_format, precision

BN_BATCHES = 100  # that BN's statistics are taken of

logger = logging.getLogger(__name__)


class WeightAverage(Callback):
    """After the last step the network's weights are their mean over the last steps, and BN's statistics fit these.

    Izmailov et al. 2018 (Averaging Weights Leads to Wider Optima and Better Generalization), at the schedule's own
    learning rates, each step counted alike. Where a network gets narrower, its mean is begun anew. This callback comes
    after those that change the network.

    Args:
        share: of the run's steps, at its end.
        stays: parameters that keep their last values, as compactors do, whose rows are zero by then.
    """

    def __init__(self, share: Share, stays: Iterable[nn.Parameter] = ()) -> None:
        self._share, self._stays = share, {id(parameter): parameter for parameter in stays}
        self._mean: dict[str, Tensor] = {}
        self._counted = 0

    def on_start(self, state: TrainState) -> None:
        self._device = state.world.device

    def after_step(self, state: TrainState) -> None:
        if state.total_steps - state.step >= self._share.of(state.total_steps):
            return
        now = {name: each for name, each in state.model.named_parameters() if id(each) not in self._stays}
        self._count(now)
        if state.step == state.total_steps:
            logger.info("the weights are now their mean over the last %d steps", self._counted)
            with torch.no_grad():
                torch._foreach_copy_(list(now.values()), list(self._mean.values()))
            with precision(state.recipe, state.world):
                update_bn(islice(_images(state), BN_BATCHES), state.model)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self._mean, "counted": self._counted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._mean = {name: each.to(self._device) for name, each in state["mean"].items()}
        self._counted = state["counted"]

    def _count(self, now: dict[str, nn.Parameter]) -> None:
        if _shapes(self._mean) != _shapes(now):
            if self._counted:
                logger.info("the network has got narrower: the mean of its weights begins anew")
            self._mean, self._counted = {name: each.detach().clone() for name, each in now.items()}, 1
            return
        get_swa_multi_avg_fn()(list(self._mean.values()), list(now.values()), self._counted)
        self._counted += 1


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _images(state: TrainState) -> Iterator[Tensor]:
    """This process's training images of the epoch, [n, C, H, W] a batch."""
    for batch in state.train_batches():
        yield batch.images.contiguous(memory_format=memory_format(state.recipe))
