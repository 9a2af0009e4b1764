"""One training step's forward and backward pass, and the network as a step calls it."""

import inspect
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from data import Batch
from training.distributed import World
from training.evaluation import batch_sums, hits_of, sum_dtype
from training.loss import distilled, logits_and_loss
from training.recipe import Recipe

# BN statistics stay each process's own while training; newer torch has another name for it.
_SYNC_ARGUMENTS = inspect.signature(DistributedDataParallel).parameters
_NO_BUFFER_SYNC = {"forward_sync_buffers" if "forward_sync_buffers" in _SYNC_ARGUMENTS else "broadcast_buffers": False}


def wrapped(model: nn.Module, world: World, compiled: bool) -> nn.Module:
    """The network that a step calls: the model, for several processes within DDP, compiled on request."""
    if world.size > 1:
        ids = [world.device.index] if world.device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=ids, **_NO_BUFFER_SYNC)
    return torch.compile(model) if compiled else model


def forward_backward(
    network: nn.Module, batch: Batch, recipe: Recipe, world: World, teaching: nn.Module | None = None
) -> torch.Tensor:
    """Add the gradient of the whole batch's mean loss to the parameters.

    DDP takes the mean over the processes, so each example counts size / global_size here, even where the processes'
    parts differ in size.

    Args:
        network: what `wrapped` gave.
        batch: this process's part.
        recipe: the precision, the loss, and how many pieces the part is cut into.
        world: the processes.
        teaching: the teacher, where it has a part in this step's loss.

    Returns:
        This process's `batch_sums`, on its device.
    """
    total = torch.zeros(4, dtype=sum_dtype(world.device), device=world.device)
    pieces = list(zip(batch.images.chunk(recipe.accumulate), batch.labels.chunk(recipe.accumulate), strict=True))
    for index, (images, labels) in enumerate(pieces):
        images = images.contiguous(memory_format=memory_format_of(recipe))
        is_last = index == len(pieces) - 1
        with nullcontext() if is_last or world.size == 1 else _no_sync(network):
            with torch.autocast(world.device.type, torch.bfloat16, enabled=recipe.amp):
                output = network(images)
            logits, loss = logits_and_loss(output, labels, recipe.label_smoothing)
            if teaching is not None:
                taught = _taught(teaching, images, recipe, world)
                loss = distilled(loss, logits, taught, recipe.distill, recipe.temperature)
            (loss * (len(labels) * world.size / batch.global_size)).backward()
        total += batch_sums(hits_of(logits.detach(), labels), loss.detach() * len(labels))
    return total


def memory_format_of(recipe: Recipe) -> torch.memory_format:
    """What images and weights are laid out in."""
    return torch.channels_last if recipe.channels_last else torch.contiguous_format


@torch.no_grad()
def _taught(teaching: nn.Module, images: torch.Tensor, recipe: Recipe, world: World) -> torch.Tensor:
    """The teacher's logits, [n, classes], for the same images that the student sees."""
    with torch.autocast(world.device.type, torch.bfloat16, enabled=recipe.amp):
        return teaching(images)


def _no_sync(network: nn.Module) -> Any:
    """Leave out the exchange of gradients; torch.compile keeps what it compiled as `_orig_mod`."""
    within = getattr(network, "_orig_mod", network)
    assert isinstance(within, DistributedDataParallel)
    return within.no_sync()
