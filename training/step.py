"""One training step: forward, backward, the optimiser with its hooks. Nothing in it waits for the device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from data import Batch
from training.callback import TrainState
from training.distributed import World
from training.evaluation import batch_sums, hits_of, sum_dtype
from training.loss import logits_and_loss
from training.recipe import Recipe
from training.teaching import NO_LESSON, Lesson


def take_step(state: TrainState, batch: Batch) -> torch.Tensor:
    """Train on one batch, at the optimiser's present rates.

    What a GPU is to do is only handed to it: no number is read back, and no operation needs a value to know its
    shape. So the next step's operations are handed over while this one's still run, and all of them can be recorded.

    Args:
        state: where the run stands; `step` and the schedule are the caller's.
        batch: this process's part of the batch.

    Returns:
        This process's `batch_sums`, on the device.
    """
    sums = passes(state, batch)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    return sums


def passes(state: TrainState, batch: Batch) -> torch.Tensor:
    """What comes before the optimiser in a step: the gradients are there then; returns as `take_step` does."""
    if state.recipe.compile_mode != "default":
        torch.compiler.cudagraph_mark_step_begin()  # what the step before left in its graphs' memory may be overwritten
    return forward_backward(state.network, batch, state.recipe, state.world, state.lesson)


def forward_backward(
    network: nn.Module, batch: Batch, recipe: Recipe, world: World, lesson: Lesson = NO_LESSON
) -> torch.Tensor:
    """Add the gradient of the whole batch's mean loss to the parameters.

    DDP takes the mean over the processes, so each example counts size / global_size here, even where the processes'
    parts differ in size.

    Args:
        network: what `training.wrapping.wrapped` gave.
        batch: this process's part.
        recipe: the precision, the loss, and how many pieces the part is cut into.
        world: the processes.
        lesson: what a teacher adds to this step's loss.

    Returns:
        This process's `batch_sums`, on its device.
    """
    total = torch.zeros(4, dtype=sum_dtype(world.device), device=world.device)
    pieces = list(zip(batch.images.chunk(recipe.accumulate), batch.labels.chunk(recipe.accumulate), strict=True))
    for index, (images, labels) in enumerate(pieces):
        images = images.contiguous(memory_format=memory_format(recipe))
        is_last = index == len(pieces) - 1
        with nullcontext() if is_last or world.size == 1 else _no_sync(network):
            with precision(recipe, world), lesson.watching:
                output = network(images)
            logits, loss = logits_and_loss(output, labels, recipe.label_smoothing)
            loss = lesson.loss(loss, logits, images, recipe, precision(recipe, world))
            (loss * (len(labels) * world.size / batch.global_size)).backward()
        total += batch_sums(hits_of(logits.detach(), labels), loss.detach() * len(labels))
    return total


def memory_format(recipe: Recipe) -> torch.memory_format:
    """How the network and its images lie in memory."""
    return torch.channels_last if recipe.channels_last else torch.contiguous_format


def precision(recipe: Recipe, world: World) -> AbstractContextManager[object]:
    """The precision that the network is run in."""
    return torch.autocast(world.device.type, torch.bfloat16) if recipe.amp else nullcontext()


def _no_sync(network: nn.Module) -> Any:
    """Leave out the exchange of gradients; torch.compile keeps what it compiled as `_orig_mod`."""
    within = getattr(network, "_orig_mod", network)
    assert isinstance(within, DistributedDataParallel)
    return within.no_sync()
