"""Rivals of this project's pruning, all without compactors, each trained by its own loop on its own data.

    python benchmarks/studies/rivals.py --how l1 -a src20 --dataset folder --data-dir DIR \\
        --weights src20_train/finish.hdf5 --epochs 12 --schedule cosine --milestones --lr 0.05 --output-dir l1

l1: the first convolution of every block keeps the same share of its filters, those with the largest L1 norm (Li et al.,
2017), and the narrow network is fine-tuned. scratch: a new network of those widths. torch-pruning: Torch-Pruning's
group sparsity (Fang et al., 2023) for a part of the epochs, its own cut of the same layers to the same MACs, then
fine-tuning for the rest; the part before the cut is a run in the subfolder sparse/. unpruned: the given network,
trained further: the accuracy that pruning should keep. With --distill the network of --weights teaches. A run that was
stopped goes on with `-c continue`; the folder gets result.json when all is done.
"""

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from the checkout without PYTHONPATH

from base_model import model_names
from benchmarks.studies.cuts import cut, group_pruner, widths_of
from benchmarks.studies.results import RESULT
from data import Data
from rr import param_groups
from rr.weights import load_start, load_strict, read_hdf5, read_weights, save_hdf5
from training import (
    Callback,
    Recipe,
    RunLog,
    RunState,
    TrainState,
    World,
    add_continue,
    add_options,
    base_recipe,
    broadcast_object,
    count_macs,
    data_for,
    evaluate,
    exit_on_bad_input,
    file_attributes,
    from_options,
    init_world,
    network_builder,
    prepare,
    read_network,
    to_plain,
    train,
)
from training.log import write_whole
from training.run_folder import FINISH_WEIGHTS, METRICS, RUN

SPARSE = "sparse"  # the folder of the part before Torch-Pruning's cut, in the run's


@dataclass(frozen=True)
class Rival:
    """Which way, from which network, to how many MACs.

    Raises:
        ValueError: on a value that can't be; says what can.
    """

    how: str = field(
        default="l1",
        metadata={"help": "which way to a network", "choices": ("l1", "scratch", "torch-pruning", "unpruned")},
    )
    base_weights: str | None = field(
        default=None, metadata={"flags": ("--weights",), "help": "weights of the trained network; scratch needs none"}
    )
    flops_target: float = field(default=0.47, metadata={"help": "share of the MACs to keep at most"})
    sparse_share: float = field(default=0.5, metadata={"help": "torch-pruning: share of the epochs before the cut"})
    sparse_lr: float = field(default=0.01, metadata={"help": "torch-pruning: learning rate before the cut"})
    sparse_penalty: float = field(default=5e-4, metadata={"help": "torch-pruning: its regularisation (reg)"})

    def __post_init__(self) -> None:
        checks = {
            "flops_target must be more than 0 and less than 1": 0 < self.flops_target < 1,
            "sparse_share must be more than 0 and less than 1": 0 < self.sparse_share < 1,
            "sparse_lr must be more than 0": self.sparse_lr > 0,
            "sparse_penalty must be at least 0": self.sparse_penalty >= 0,
        }
        for message, holds in checks.items():
            if not holds:
                raise ValueError(f"{message}, not {getattr(self, message.split()[0])!r}")
        if self.base_weights is None and self.how != "scratch":
            raise ValueError(f"how '{self.how}' starts from a trained network: give its file with --weights")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with exit_on_bad_input():
        defaults = base_recipe(*read_network(arguments)), Rival(how="scratch")
        parser = argparse.ArgumentParser(
            usage="%(prog)s --how WAY -a NAME [options]",
            description=__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        add_continue(parser)
        add_options(parser, *defaults)
        options = parser.parse_args(arguments)
        recipe, rival = (from_options(options, default) for default in defaults)
        run(recipe, rival, options.conti_or_fs)


def run(recipe: Recipe, rival: Rival, conti_or_fs: str | None = None) -> None:
    """Make the network narrow, train it, write what came of it.

    Raises:
        ValueError: for what a person can put right.
    """
    if recipe.arch not in model_names() or not recipe.arch.startswith("src"):
        raise ValueError(f"only the CIFAR ResNets have these layers, not {recipe.arch}: give -a src20, say")
    if recipe.distill and rival.base_weights is None:
        raise ValueError("distill needs a teacher, the trained network: give its file with --weights")
    with init_world(recipe.device) as world:
        data = data_for(recipe.arch, recipe.dataset, recipe.data_dir, recipe.image_size, recipe.workers)
        torch.manual_seed(recipe.seed)
        start = network_builder(recipe.arch, data)().to(world.device)
        if rival.base_weights is not None:
            load_start(start, read_weights(rival.base_weights).arrays, rival.base_weights, data.num_classes)
        teacher = copy.deepcopy(start) if recipe.distill else None
        before_cut, recipe_after = start, recipe
        if rival.how == "torch-pruning":
            before, recipe_after = two_parts(recipe, rival)
            before_cut = copy.deepcopy(start)
            sparsity = [SparseLearning(rival, data)]
            train_in_folder(before, rival, before_cut, data, world, teacher, conti_or_fs, sparsity)
        narrow = cut(rival.how, recipe.arch, before_cut, data, rival.flops_target)
        train_in_folder(recipe_after, rival, narrow, data, world, teacher, conti_or_fs)
        write_result(recipe_after, rival, (start, before_cut, narrow), data, world)


def two_parts(recipe: Recipe, rival: Rival) -> tuple[Recipe, Recipe]:
    """The recipes before and after the cut, which share the recipe's epochs; before it, sparsity replaces weight decay.

    Raises:
        ValueError: where there is only one epoch.
    """
    if recipe.epochs < 2:
        raise ValueError("how 'torch-pruning' trains before the cut and behind it: give --epochs 2 at least")
    first = min(max(round(recipe.epochs * rival.sparse_share), 1), recipe.epochs - 1)
    folder = str(Path(recipe.output_dir) / SPARSE)
    before = replace(recipe, epochs=first, lr=rival.sparse_lr, weight_decay=0.0, output_dir=folder)
    return before, replace(recipe, epochs=recipe.epochs - first)


class SparseLearning(Callback):
    """Torch-Pruning's regularisation, added to the gradients before each step as its own loops do."""

    def __init__(self, rival: Rival, data: Data) -> None:
        self.rival, self.data = rival, data

    def on_start(self, state: TrainState) -> None:
        pruner = group_pruner(state.model, self.data, self.rival.sparse_penalty)
        state.optimizer.register_step_pre_hook(lambda *_: pruner.regularize(state.model))


def train_in_folder(
    recipe: Recipe,
    rival: Rival,
    model: nn.Module,
    data: Data,
    world: World,
    teacher: nn.Module | None,
    conti_or_fs: str | None,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train the model in the recipe's folder, or load what an earlier start of the run trained there."""
    everything = {**to_plain(recipe), **to_plain(rival)}
    todo = prepare(recipe.output_dir, everything, conti_or_fs) if world.is_first else None
    todo = broadcast_object(world, todo)
    if todo is RunState.FINISHED:
        finished = Path(recipe.output_dir) / FINISH_WEIGHTS
        load_strict(model, read_hdf5(finished).arrays, str(finished))
        return
    with RunLog(recipe.output_dir, world, everything, resume=todo is RunState.RESUME) as log:
        train(
            recipe,
            model,
            data,
            world,
            log,
            param_groups=partial(param_groups, **recipe.sgd),
            write_weights=lambda path, network: save_hdf5(
                path, network.state_dict(), file_attributes(recipe, data), widths_of(network)
            ),
            callbacks=callbacks,
            resume=todo is RunState.RESUME,
            teacher=teacher,
        )


def write_result(
    recipe: Recipe, rival: Rival, networks: tuple[nn.Module, nn.Module, nn.Module], data: Data, world: World
) -> None:
    """Write result.json, the run's last file, with how each of the networks tests, and what trained them.

    The trained network is tested in float32, as converted ones are, the others as in training.

    Args:
        networks: the given one, the one before the cut, and the trained one.
    """
    folder = Path(recipe.output_dir)
    # One memory format, whether a run was done before (and its weights are from a file) or now: sums are in its order.
    start, before_cut, narrow = (
        network.to(world.device, memory_format=torch.contiguous_format) for network in networks
    )
    image = torch.zeros(1, data.in_channels, data.image_size, data.image_size, device=world.device)
    macs_before, macs_after = count_macs(start, image), count_macs(narrow, image)
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    evaluated = [line["val"] for line in lines if "val" in line]
    settings = {"batch_size": recipe.batch_size, "channels_last": recipe.channels_last}
    in_training = {**settings, "amp": recipe.amp}
    trained, has_cut = rival.how != "scratch", rival.how not in ("scratch", "unpruned")
    base, before = (
        evaluate(network, data, world, **in_training).to_dict() if known else None
        for network, known in ((start, trained), (before_cut, has_cut))
    )
    found = {
        "base": base,
        "before_cut": before,
        "after_cut": evaluated[0] if has_cut else None,
        "finished": evaluate(narrow, data, world, **settings).to_dict(),
        "widths": widths_of(narrow),
        "macs_before": macs_before,
        "macs_after": macs_after,
        "macs_ratio": macs_after / macs_before,
        "run": json.loads((folder / RUN).read_text()),
    }
    if world.is_first:
        write_whole(folder / RESULT, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
