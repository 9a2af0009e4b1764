"""A run that takes a second: a tiny network on the synthetic images, in this process or as a command.

    python -m tests.training.tiny_run --net dropout --kill-at 7 [--of-rank 1] [--by STOP] [-c continue] [Recipe's]

With RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set it is one process of several.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from data import Data, SyntheticSize, load_data
from rr import param_groups
from training import (
    Callback,
    Recipe,
    RunLog,
    RunState,
    TrainResult,
    TrainState,
    add_continue,
    add_options,
    broadcast_object,
    ends_in_one_line,
    from_options,
    init_world,
    prepare,
    to_plain,
    train,
)
from training.json_files import read_lines


class PlainNet(nn.Module):
    """float64 and no BN: a batch's gradient is exactly the mean of its examples'."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, dtype=torch.float64)
        self.fc = nn.Linear(6, 10, dtype=torch.float64)
        self.scale = 1.0  # of the outputs; a test makes it infinite

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * self.fc(F.relu(self.conv(images.double())).mean((2, 3)))


class DropoutNet(nn.Module):
    """BN statistics and dropout: state and random numbers that a resumed run must get right."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.bn = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(F.dropout(F.relu(self.bn(self.conv(images))).mean((2, 3)), 0.3, self.training))


NETS = {"plain": PlainNet, "dropout": DropoutNet}


def tiny_teacher(net: str) -> nn.Module:
    """The same network with other weights, in training mode: whoever takes it must see to the rest."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return NETS[net]()


class KillAt(Callback):
    """Ends the process of a rank as `kill -9` does, right after a step, or sends it another signal."""

    def __init__(self, step: int, rank: int = 0, by: str = "KILL") -> None:
        self.step, self.rank, self.number = step, rank, signal.Signals[f"SIG{by}"]

    def after_step(self, state: TrainState) -> None:
        if (state.step, state.world.rank) == (self.step, self.rank):
            os.kill(os.getpid(), self.number)


class PoisonAt(Callback):
    """Makes the images of some steps NaN, on all ranks or on one: the loss and BN's statistics are NaN then."""

    def __init__(self, *steps: int, rank: int | None = None) -> None:
        self.steps, self.rank = steps, rank

    def on_start(self, state: TrainState) -> None:
        def poisoned(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
            here = model.training and state.step + 1 in self.steps and self.rank in (None, state.world.rank)
            return inputs[0] * float("nan") if here else inputs[0]

        state.model.register_forward_pre_hook(poisoned)


class StepSum(Callback):
    """A callback with a state: the sum of all steps' numbers."""

    def __init__(self) -> None:
        self.sum = 0

    def after_step(self, state: TrainState) -> None:
        self.sum += state.step

    def scalars(self) -> dict[str, float]:
        return {"step_sum": float(self.sum)}

    def progress(self) -> dict[str, str]:
        return {"sum": str(self.sum)}

    def state_dict(self) -> dict[str, int]:
        return {"sum": self.sum}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.sum = state["sum"]


def tiny_data() -> Data:
    """50 training images: batches of 8 become 7 steps of 7 or 8 images. 21 validation images, 8x8."""
    return load_data("synthetic", image_size=8, synthetic_size=SyntheticSize(train=50, val=21))


def tiny_recipe(output_dir: Path | str, **changes: object) -> Recipe:
    """Three epochs of 7 steps."""
    fields = {
        "device": "cpu",
        "epochs": 3,
        "batch_size": 8,
        "lr": 0.1,
        "val_last": 1,
        "val_interval": 2,
        "log_interval": 3,
    }
    return Recipe(arch="tiny", dataset="synthetic", output_dir=str(output_dir), **{**fields, **changes})


def metrics_without_times(folder: Path) -> list[dict]:
    """The lines of metrics.jsonl without what depends on the machine."""
    lines = read_lines(folder / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name != "time"} for line in lines]


def run(
    recipe: Recipe, net: str = "plain", callbacks: Sequence[Callback] = (), conti_or_fs: str | None = None
) -> tuple[nn.Module, TrainResult]:
    """Train; weights are written with torch.save, whatever the name."""
    torch.manual_seed(recipe.seed)
    model = NETS[net]()
    groups = {"lr": recipe.lr, "momentum": recipe.momentum, "weight_decay": recipe.weight_decay}
    teacher = tiny_teacher(net) if recipe.distill else None
    with init_world(recipe.device, wait=recipe.process_timeout) as world:
        todo = prepare(recipe.output_dir, to_plain(recipe), conti_or_fs) if world.is_first else None
        resume = broadcast_object(world, todo) is RunState.RESUME
        with RunLog(recipe.output_dir, world, to_plain(recipe), resume=resume) as log:
            result = train(
                recipe,
                model,
                tiny_data(),
                world,
                log,
                param_groups=lambda network: param_groups(network, **groups),
                write_weights=lambda path, network: torch.save(network.state_dict(), path),
                callbacks=callbacks,
                resume=resume,
                teacher=teacher,
            )
    return model, result


def main(arguments: Sequence[str]) -> None:
    """Run as a command."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--net", default="plain")
    parser.add_argument("--kill-at", type=int, default=0)
    parser.add_argument("--poison-at", type=int, default=0)
    parser.add_argument("--of-rank", type=int, default=0)
    parser.add_argument("--by", default="KILL")
    add_continue(parser)
    recipe = tiny_recipe("unset")
    add_options(parser, recipe)
    options = parser.parse_args(arguments)
    callbacks = [StepSum(), KillAt(options.kill_at, options.of_rank, options.by)]
    callbacks += [PoisonAt(options.poison_at, rank=options.of_rank)] if options.poison_at else []
    with ends_in_one_line() as ending:
        ending.folder = Path(options.output_dir)
        run(from_options(options, recipe), options.net, callbacks, options.conti_or_fs)


if __name__ == "__main__":
    main(sys.argv[1:])
