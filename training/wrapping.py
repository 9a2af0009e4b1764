"""The network as a training step calls it: within DDP, compiled."""

import inspect

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from training.distributed import World
from training.recipe import Recipe

# BN statistics stay each process's own while training; newer torch has another name for it.
_SYNC_ARGUMENTS = inspect.signature(DistributedDataParallel).parameters
_NO_BUFFER_SYNC = {"forward_sync_buffers" if "forward_sync_buffers" in _SYNC_ARGUMENTS else "broadcast_buffers": False}


def wrapped(model: nn.Module, recipe: Recipe, world: World) -> nn.Module:
    """The model, for several processes within DDP, compiled where the recipe says so.

    Args:
        model: the plain network, on the world's device.
        recipe: whether and in which mode it is compiled.
        world: the processes.
    """
    if world.size > 1:
        ids = [world.device.index] if world.device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=ids, **_NO_BUFFER_SYNC)
    return torch.compile(model, mode=recipe.compile_mode) if recipe.compile else model
