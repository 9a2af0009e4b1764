"""A run of a tiny network with its pruner, between the steps of which a test can look."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from data import Data, SyntheticSize, load_data
from rr import ResRepPruner
from training import Recipe, TrainState, World

RULES = {
    "the paper's": {},
    "a short run's": {"score": "taylor", "proximal": True, "masked_penalty": 0.1},
    "streams, diagonal": {"layers": "all", "compactors": "diagonal"},
}


def tiny_images() -> Data:
    """50 images as `tiny_pruner` takes them: batches of 7 or 8."""
    sizes = SyntheticSize(train=50, val=21, classes=3, channels=1)
    return load_data("synthetic", image_size=8, synthetic_size=sizes)


def state_of(pruner: ResRepPruner, device: str, **settings: object) -> TrainState:
    """A run on a device, with its pruner attached, before its first step."""
    pruner.model.train().to(device)
    pruner.load_state_dict(pruner.state_dict())  # on `meta` the parameters are others now, and are looked up again
    optimizer = torch.optim.SGD(pruner.param_groups(lr=0.05))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    recipe = Recipe(arch="tiny", dataset="synthetic", batch_size=8, **settings)
    world = World(0, 0, 1, torch.device(device))
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).to(device) if recipe.distill else None
    nowhere = SimpleNamespace(folder=Path())
    state = TrainState(
        recipe, world, nowhere, tiny_images(), pruner.model, optimizer, schedule, lambda *_: None, 7, 700, teacher
    )
    pruner.attach(optimizer)
    return state
