"""The project's own training steps with a pruner, on random images: the same ones, whatever they are computed in."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import torch

from base_model import build_any
from benchmarks.gpu_parts.clock import milliseconds
from benchmarks.gpu_parts.setting import Figures
from data import Batch, SyntheticSize, load_data
from experiments.resrep_callback import ResRepCallback
from rr import ResRepPruner, paper_config
from training import Recipe, TrainState, World
from training.meter import Meter
from training.recorded import RecordedSteps
from training.recording import CudaGraphs
from training.step import take_step

Step = Callable[[Batch], torch.Tensor]  # trains on a batch; its sums, as `training.step.take_step`


class PruningSteps:
    """A run's steps without its evaluations and files; masks are updated every 10 steps after the first 10.

    Args:
        arch: the network, whose weights are random.
        batch_size: images in a step.
        device: where all is.
        settings: of the recipe: `amp`, `cuda_graph`, `compile`, ...
    """

    def __init__(self, arch: str, batch_size: int, device: torch.device, **settings: object) -> None:
        torch.manual_seed(0)
        model = build_any(arch, in_channels=3)
        config = paper_config(flops_target=0.5, warmup_steps=10, mask_interval=10)
        self.pruner = ResRepPruner(model, torch.zeros(1, 3, 32, 32), config)
        model.to(device, memory_format=torch.channels_last).train()
        # The rate is small, so that rounding doesn't grow from step to step until two runs can't be compared.
        optimizer = torch.optim.SGD(self.pruner.param_groups(lr=0.001), lr=0.001)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.999**step)
        recipe = Recipe(arch, "synthetic", batch_size=batch_size, **settings)
        data = load_data("synthetic", synthetic_size=SyntheticSize(train=20 * batch_size, val=10))
        self.state = TrainState(
            recipe,
            World(0, 0, 1, device),
            SimpleNamespace(folder=Path()),  # nothing is logged or written
            data,
            model,
            optimizer,
            schedule,
            lambda path, network: None,
            data.steps_per_epoch(batch_size),
            10**6,
        )
        self._callback, self._meter = ResRepCallback(self.pruner), Meter(self.state.world)
        self._callback.on_start(self.state)
        self.state.rewrap()
        self._batches = self._all_batches()
        self.step: Step = lambda batch: take_step(self.state, batch)
        if recipe.cuda_graph:
            self.step = RecordedSteps(self.state, [self._callback], CudaGraphs(device))

    def take(self) -> None:
        """One step, as the loop makes it."""
        state = self.state
        torch.manual_seed(state.step)
        sums = self.step(next(self._batches))
        state.scheduler.step()
        state.step += 1
        self._meter.add(sums, state.step)
        self._callback.after_step(state)

    def figures(self, rounds: int, times: int) -> Figures:
        """The median milliseconds of a step, over rounds of some steps, and the mean loss and the masks after all.

        The first round isn't counted: kernels are chosen in it, and steps recorded.
        """
        found = [milliseconds(self.take, self.state.world.device, times) for _ in range(rounds + 1)]
        return {
            "ms": statistics.median(found[1:]),
            "rounds_ms": found[1:],
            "first_round_ms": found[0],
            "loss": self._meter.epoch().loss,
            "steps": self.pruner.steps,
            "masked": int((~self.pruner.unmasked.alive).sum()),
        }

    def _all_batches(self) -> Iterator[Batch]:
        epoch, recipe = 0, self.state.recipe
        while True:
            yield from self.state.data.train_batches(
                epoch, batch_size=recipe.batch_size, seed=0, device=self.state.world.device
            )
            epoch += 1


def compared(figures: Figures, reference: Figures, tolerance: float) -> Figures:
    """The figures with their ratio to those of a reference, and whether both trained alike.

    Args:
        figures, reference: as `PruningSteps.figures`, over as many steps.
        tolerance: by how much of it the mean loss may differ.
    """
    difference = abs(figures["loss"] - reference["loss"]) / reference["loss"]
    return figures | {
        "over_float32": figures["ms"] / reference["ms"],
        "loss_difference": difference,
        "agrees": difference <= tolerance and figures["steps"] == reference["steps"],
    }
