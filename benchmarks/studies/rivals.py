"""Rivals of this project's pruning, all without compactors, each trained by its own loop on its own data.

    python benchmarks/studies/rivals.py --how l1 -a src20 --dataset folder --data-dir DIR \\
        --weights src20_train/finish.hdf5 --epochs 12 --schedule cosine --milestones --lr 0.05 --output-dir l1

l1: the first convolution of every block keeps the same share of its filters, those with the largest L1 norm (Li et al.,
2017), and the narrow network is fine-tuned. taylor: the same with the filters that Torch-Pruning's Taylor scores leave.
scratch: a new network of the widths of l1. torch-pruning: Torch-Pruning's
group sparsity (Fang et al., 2023) for a part of the epochs, its own cut of the same layers to the same MACs, then
fine-tuning for the rest; the part before the cut is a run in the subfolder sparse/. unpruned: the given network,
trained further: the accuracy that pruning should keep. With --distill the network of --weights teaches. A run that was
stopped goes on with `-c continue`; the folder gets result.json when all is done.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from the checkout without PYTHONPATH

from base_model import model_names
from benchmarks.studies.cuts import cut, group_pruner, widths_of
from benchmarks.studies.results import RESULT
from data import Data
from experiments.call import Call
from experiments.command_line import read_network, run_parser
from experiments.recipes import base_recipe
from experiments.run import Run, begun
from rr import InputError, param_groups
from rr.settings import check, setting
from rr.weights import load_strict, read_hdf5, save_hdf5
from training import (
    Callback,
    Recipe,
    RunState,
    TrainState,
    add_options,
    count_macs,
    ends_in_one_line,
    evaluate,
    from_options,
)
from training.json_files import read_json, read_lines, write_json
from training.run_folder import FINISH_WEIGHTS, METRICS, RUN

SPARSE = "sparse"  # the folder of the part before Torch-Pruning's cut, inside the run's


@dataclass(frozen=True)
class Rival:
    """Which way, from which network, to how many MACs.

    Raises:
        InputError: for a value that can't be, with the fix in the message.
    """

    how: str = setting(
        "which way to a network", "l1", topic="rival", choices=("l1", "taylor", "scratch", "torch-pruning", "unpruned")
    )
    base_weights: str | None = setting(
        "weights of the trained network; scratch needs none", None, topic="rival", flags=("--weights",)
    )
    flops_target: float = setting("share of the MACs to keep at most", 0.47, topic="rival")
    sparse_share: float = setting("torch-pruning: share of the epochs before the cut", 0.5, topic="rival")
    sparse_lr: float = setting("torch-pruning: learning rate before the cut", 0.01, topic="rival")
    sparse_penalty: float = setting("torch-pruning: its regularisation (reg)", 5e-4, topic="rival")

    def __post_init__(self) -> None:
        check(
            self,
            {
                "flops_target must be more than 0 and less than 1": 0 < self.flops_target < 1,
                "sparse_share must be more than 0 and less than 1": 0 < self.sparse_share < 1,
                "sparse_lr must be more than 0": self.sparse_lr > 0,
                "sparse_penalty must be at least 0": self.sparse_penalty >= 0,
            },
        )
        if self.base_weights is None and self.how != "scratch":
            raise InputError(f"how '{self.how}' starts from a trained network: give its file with --weights")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with ends_in_one_line() as ending:
        defaults = base_recipe(*read_network(arguments)), Rival(how="scratch")
        parser = run_parser(__doc__)
        add_options(parser, *defaults)
        options = parser.parse_args(arguments)
        recipe, rival = (from_options(options, default) for default in defaults)
        ending.folder = Path(recipe.output_dir)
        run_rival(recipe, rival, Call(options.conti_or_fs, options.local_rank))


def run_rival(recipe: Recipe, rival: Rival, call: Call | None = None) -> None:
    """Make the network narrow, train it and write the result.

    Args:
        recipe: how to train.
        rival: which way, from which network, to how many MACs.
        call: how the script was called.

    Raises:
        InputError: for what a user can put right.
    """
    if rival.how != "unpruned" and not (recipe.arch in model_names() and recipe.arch.startswith("src")):
        raise InputError(f"only the CIFAR ResNets have these layers, not {recipe.arch}: give -a src20, say")
    if recipe.distill and rival.base_weights is None and recipe.teacher is None:
        raise InputError("distill needs a teacher, the trained network: give its file with --weights, or --teacher")
    with begun(recipe, rival, call=call) as run:
        start = run.network().to(run.world.device)
        if rival.base_weights is not None:
            run.load(start, rival.base_weights)
        teacher = copy.deepcopy(start) if recipe.distill else None
        if recipe.teacher is not None:
            run.load(teacher, recipe.teacher)
        before_cut, recipe_after = start, recipe
        if rival.how == "torch-pruning":
            before, recipe_after = two_parts(recipe, rival)
            before_cut = copy.deepcopy(start)
            sparsity = [SparseLearning(rival, run.data)]
            train_in_folder(replace(run, recipe=before.for_run()), before_cut, teacher, sparsity)
        narrow = cut(rival.how, recipe.arch, before_cut, run.data, rival.flops_target)
        after = replace(run, recipe=recipe_after.for_run())
        train_in_folder(after, narrow, teacher)
        write_result(after, rival, (start, before_cut, narrow))


def two_parts(recipe: Recipe, rival: Rival) -> tuple[Recipe, Recipe]:
    """The recipes before and after the cut, which share the recipe's epochs; before it, sparsity replaces weight decay.

    Raises:
        InputError: if there is only one epoch.
    """
    if recipe.epochs < 2:
        raise InputError("how 'torch-pruning' trains before and after the cut: give at least --epochs 2")
    first = min(max(round(recipe.epochs * rival.sparse_share), 1), recipe.epochs - 1)
    folder = str(Path(recipe.output_dir) / SPARSE)
    before = replace(recipe, epochs=first, lr=rival.sparse_lr, weight_decay=0.0, output_dir=folder)
    return before, replace(recipe, epochs=recipe.epochs - first)


class SparseLearning(Callback):
    """Torch-Pruning's regularisation, added to the gradients before each step as its own loops do.

    Args:
        rival: has the penalty.
        data: the data set.
    """

    def __init__(self, rival: Rival, data: Data) -> None:
        self.rival, self.data = rival, data

    def on_start(self, state: TrainState) -> None:
        pruner = group_pruner(state.model, self.data, self.rival.sparse_penalty)
        state.optimizer.register_step_pre_hook(lambda *_: pruner.regularize(state.model))


def train_in_folder(run: Run, model: nn.Module, teacher: nn.Module | None, callbacks: Sequence[Callback] = ()) -> None:
    """Train the model in the run's folder, or load what an earlier start of the run trained there.

    Args:
        run: has the recipe and the folder.
        model: the network, changed in place.
        teacher: the network that teaches, if any.
        callbacks: what else is to happen while it trains.
    """
    state = run.state()
    if state is RunState.FINISHED:
        finished = run.folder / FINISH_WEIGHTS
        load_strict(model, read_hdf5(finished).arrays, str(finished))
        return
    with run.logged(state):
        run.train(
            model,
            state,
            param_groups=partial(param_groups, **run.recipe.sgd),
            write_weights=lambda path, network: save_hdf5(
                path, network.state_dict(), run.attributes, widths_of(network)
            ),
            callbacks=callbacks,
            teacher=teacher,
        )


def write_result(run: Run, rival: Rival, networks: tuple[nn.Module, nn.Module, nn.Module]) -> None:
    """Write result.json, the run's last file: how good each of the networks is, and what trained them.

    The trained network is tested in float32, as converted ones are, the others as in training.

    Args:
        run: the run of the part after the cut.
        rival: which way it went.
        networks: the given one, the one before the cut, and the trained one.
    """
    recipe, data, world, folder = run.recipe, run.data, run.world, run.folder
    # One memory format, whether the weights are from a file (of a run done before) or not: sums depend on its order.
    start, before_cut, narrow = (
        network.to(world.device, memory_format=torch.contiguous_format) for network in networks
    )
    image = torch.zeros(1, data.in_channels, data.image_size, data.image_size, device=world.device)
    macs_before, macs_after = count_macs(start, image), count_macs(narrow, image)
    evaluated = [line["val"] for line in read_lines(folder / METRICS) if "val" in line]
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
        "run": read_json(folder / RUN),
    }
    if world.is_first:
        write_json(folder / RESULT, found)


if __name__ == "__main__":
    main()
