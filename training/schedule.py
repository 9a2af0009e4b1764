"""Learning rates as a closed-form function of the step, so that a resumed run needs no history."""

import math
from bisect import bisect_right
from collections.abc import Callable

from training.recipe import Recipe


def lr_factor(recipe: Recipe, steps_per_epoch: int, lr: float | None = None) -> Callable[[int], float]:
    """The factor on a group's learning rate at a step (from 0), for torch.optim.lr_scheduler.LambdaLR.

    Warm-up over W steps: linear f + (1 - f) * s / W, or constant f. Then, with t from 0 to 1 over the rest of the run
    and m = min_lr / lr: cosine m + (1 - m) * (1 + cos(pi t)) / 2; linear 1 - (1 - m) * t; step gamma for each milestone
    passed, in epochs from the run's start. max_steps shortens a run, not its schedule.

    Args:
        recipe: the settings.
        steps_per_epoch: optimiser steps in an epoch.
        lr: the group's own rate at the start, where it isn't the recipe's: all groups fall to the same minimum.
    """
    warmup_steps = recipe.warmup_epochs * steps_per_epoch
    falling_steps = recipe.epochs * steps_per_epoch - warmup_steps
    milestones = [round(epoch * steps_per_epoch) for epoch in recipe.milestone_epochs]
    minimum = min(recipe.min_lr / (lr or recipe.lr), 1.0)

    def factor(step: int) -> float:
        if step < warmup_steps:
            rise = step / warmup_steps if recipe.warmup == "linear" else 0.0
            return recipe.warmup_factor + (1 - recipe.warmup_factor) * rise
        t = min((step - warmup_steps) / falling_steps, 1.0)
        if recipe.schedule == "cosine":
            return minimum + (1 - minimum) * (1 + math.cos(math.pi * t)) / 2
        if recipe.schedule == "linear":
            return 1 - (1 - minimum) * t
        return recipe.gamma ** bisect_right(milestones, step)

    return factor
