"""What the training loop shows to callbacks, and when it calls them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data import Batch, Data
from training.distributed import World
from training.log import RunLog
from training.recipe import Recipe
from training.teaching import KeptOutputs, Lesson, Stages
from training.wrapping import wrapped


@dataclass
class TrainState:
    """Where a run stands.

    Attributes:
        recipe, world, log, data: the run's, as given to `train`.
        model: the plain network.
        network: what a step calls: the model, wrapped for several processes, compiled.
        optimizer, scheduler: the run's.
        write_weights: (path, model) -> None; writes a weight file.
        steps_per_epoch: optimiser steps of an epoch.
        total_steps: optimiser steps of the run.
        teacher: the plain teacher network, if any; it is neither trained nor wrapped nor saved.
        teaching: what a step calls of the teacher: compiled.
        stages: modules whose outputs are to be the teacher's, for a recipe with `distill_outputs`.
        settled: whether a callback that changes the model's shapes is done with that: the network is compiled only
            then, since each change would compile it again.
        epoch: how many epochs are done.
        step: how many steps are done.
        evaluations: the first of the run and the last so far, as in metrics.jsonl: `first`, `last`.
        skipped: how many of the steps were left out, as the recipe's `non_finite_loss` has it.
        skipped_in_a_row: how many of the last ones; over 0 where the last one was.
        wraps: how often `rewrap` was called.
    """

    recipe: Recipe
    world: World
    log: RunLog
    data: Data
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LambdaLR
    write_weights: Callable[[Path, nn.Module], None]
    steps_per_epoch: int
    total_steps: int
    teacher: nn.Module | None = None
    settled: Callable[[], bool] = lambda: True
    epoch: int = 0
    step: int = 0
    evaluations: dict[str, dict[str, float]] = field(default_factory=dict)
    skipped: int = 0
    skipped_in_a_row: int = 0
    wraps: int = 0
    network: nn.Module = field(init=False)
    teaching: nn.Module | None = field(init=False)
    stages: Stages | None = field(init=False)

    def __post_init__(self) -> None:
        self.network, self.teaching, self.stages = self.model, self.teacher, None
        if self.recipe.distill_outputs and self.teacher is not None:
            self.stages = Stages(
                *(KeptOutputs(each, self.recipe.distill_outputs) for each in (self.model, self.teacher))
            )
        if self.recipe.compile and self.teacher is not None:
            self.teaching = torch.compile(self.teacher, mode=self.recipe.compile_mode)

    @property
    def is_taught(self) -> bool:
        """Whether the teacher has a part in the next step's loss."""
        return self.teacher is not None and self.step < self._taught_steps

    @property
    def lesson(self) -> Lesson:
        """What the teacher adds to the next step."""
        if not self.is_taught:
            return Lesson(None, self.stages)
        return Lesson(self.teaching, self.stages, 1 - self.step / self._taught_steps)

    @property
    def _taught_steps(self) -> int:
        return round(self.recipe.distill_until * self.recipe.epochs * self.steps_per_epoch)

    def train_batches(self, start_step: int = 0) -> Iterator[Batch]:
        """This process's parts of the epoch's training batches, from that step of it on."""
        return self.data.train_batches(
            self.epoch,
            batch_size=self.recipe.batch_size,
            seed=self.recipe.seed,
            device=self.world.device,
            start_step=start_step,
            rank=self.world.rank,
            world_size=self.world.size,
        )

    def rewrap(self) -> None:
        """Make `network` from `model`, on all processes; a callback that changes the model's parameters calls this."""
        compiled = self.recipe.compile and self.settled()
        self.network = wrapped(self.model, replace(self.recipe, compile=compiled), self.world)
        self.wraps += 1

    def save_weights(self, name: str) -> None:
        """Write the model's weights to `name` in the run's folder, on rank 0."""
        if self.world.is_first:
            self.write_weights(self.log.folder / name, self.model)


class Callback:
    """What may happen besides training: override what is needed. Every method is called on all processes."""

    def on_start(self, state: TrainState) -> None:
        """The optimiser is there; nothing is evaluated, loaded from a checkpoint, or trained yet."""

    def before_first_step(self, state: TrainState) -> None:
        """A run begins (not: goes on): its first weights are written and evaluated."""

    def after_step(self, state: TrainState) -> None:
        """After the optimiser's step, or where it was left out; `state.step` counts it already."""

    def next_step_is_alike(self) -> bool:
        """Whether the next step has nothing to do that is not done in every step: a recorded one may be replayed."""
        return True

    def after_replay(self) -> None:
        """A step was replayed, so hooks on modules and on the optimiser didn't run; `after_step` comes next."""

    def after_epoch(self, state: TrainState) -> None:
        """After the epoch's training and evaluation, before its files are written; `state.epoch` counts it already."""

    def scalars(self) -> dict[str, float]:
        """Named values for TensorBoard (every log_interval steps) and metrics.jsonl (every epoch)."""
        return {}

    def records(self) -> dict[str, Any]:
        """What else a line of metrics.jsonl holds about an epoch: plain values, by name."""
        return {}

    def progress(self) -> dict[str, str]:
        """What the progress bar shows, and the lines that take its place in log.txt."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold: plain values and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint, after `on_start`.

        The model's and the optimiser's own states are loaded after this, so that a callback can first give both the
        structure that they had.
        """
