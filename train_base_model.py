"""Train a network, from scratch or from --weights: the one that is pruned afterwards.

    python train_base_model.py -a src56                              # CIFAR-10, 240 epochs, to src56_train/
    torchrun --nproc_per_node 8 train_base_model.py -a sres50 --amp  # ImageNet, 90 epochs, to sres50_train/
    python train_base_model.py -a src20 --dataset digits --epochs 10 --schedule cosine   # minutes on a laptop
    python train_base_model.py -a torchvision/mobilenet_v2 --dataset folder --data-dir DIR \\
        --weights default --new-classifier --lr 0.01 --epochs 20                         # fine-tune ImageNet's weights

Networks: this project's, torchvision/NAME, timm/NAME or FILE.py:FUNCTION, a function in a file of yours that is called
with those of num_classes, in_channels and image_size that it takes. The paper's ResNet-56 has 93.71% top-1 (section
4.1). Stopped runs go on with `-c continue`. A run's folder holds log.txt, metrics.jsonl, run.json, tensorboard/,
init.hdf5, latest.pth, finish.pth, finish.hdf5.
"""

import argparse
import copy
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from base_model import pretrained_weights
from rr import param_groups
from rr.weights import load_start, load_strict, read_hdf5, read_weights, save_hdf5
from training import (
    Recipe,
    RunLog,
    RunState,
    add_continue,
    add_local_rank,
    add_options,
    base_recipe,
    broadcast_object,
    check_fits,
    data_for,
    default_values,
    exit_on_bad_input,
    file_attributes,
    first_rank_first,
    from_options,
    init_world,
    is_new_run,
    network_builder,
    prepare,
    read_network,
    to_plain,
    train,
)
from training.run_folder import INIT_WEIGHTS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """Where training begins."""

    weights: str | None = field(
        default=None,
        metadata={
            "help": "weights to start from: a file (.pth, .pt, .safetensors, .hdf5), or default for what "
            "torchvision or timm has to download; none: from scratch"
        },
    )
    new_classifier: bool = field(
        default=False, metadata={"help": "leave the weights' classifier out where it has another number of classes"}
    )

    def __post_init__(self) -> None:
        if self.new_classifier and self.weights is None:
            raise ValueError("new_classifier is for weights that training starts from: give --weights too")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    with exit_on_bad_input():
        recipe, start, options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
        run(recipe, start, options.conti_or_fs, options.local_rank)


def parse_arguments(arguments: Sequence[str]) -> tuple[Recipe, Start, argparse.Namespace]:
    """The network's own recipe with what the command line changes in it. Exits with 2 for what it doesn't know."""
    defaults = base_recipe(*read_network(arguments)), Start()
    parser = argparse.ArgumentParser(
        usage="%(prog)s -a NAME [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_continue(parser)
    add_local_rank(parser)
    add_options(parser, *defaults)
    options = parser.parse_args(arguments)
    recipe, start = (from_options(options, default) for default in defaults)
    return recipe, start, options


def run(recipe: Recipe, start: Start, conti_or_fs: str | None = None, local_rank: int | None = None) -> None:
    """Train as the recipe says; raises ValueError for what a person can put right."""
    if recipe.distill and start.weights is None:
        raise ValueError("distill needs a teacher, the trained weights that the run starts from: give --weights too")
    with init_world(recipe.device, local_rank) as world:
        with first_rank_first(world):
            data = data_for(recipe.arch, recipe.dataset, recipe.data_dir, recipe.image_size, recipe.workers)
            downloads = start.weights == "default" and is_new_run(recipe.output_dir, conti_or_fs)
            downloaded = pretrained_weights(recipe.arch) if downloads else None

        torch.manual_seed(recipe.seed)
        model = network_builder(recipe.arch, data)()
        check_fits(model, data, for_training=True)
        left_out = []
        if start.weights is not None and is_new_run(recipe.output_dir, conti_or_fs):
            arrays = downloaded or read_weights(start.weights).arrays
            left_out = load_start(model, arrays, start.weights, data.num_classes, start.new_classifier)
        if recipe.distill and left_out:
            raise ValueError(
                f"distill needs a teacher that knows the data's classes, and {start.weights} comes without its "
                "classifier: train without --distill first, and start from what that writes"
            )
        teacher = copy.deepcopy(model) if recipe.distill else None

        everything, defaults = {**to_plain(recipe), **to_plain(start)}, default_values(recipe, start)
        todo = prepare(recipe.output_dir, everything, conti_or_fs, defaults) if world.is_first else None
        todo = broadcast_object(world, todo)
        if todo is RunState.FINISHED:
            if world.is_first:
                print(
                    f"{recipe.output_dir} holds the finished run of this recipe: nothing to do ('-c fs' starts again)"
                )
            return

        if teacher is not None and todo is RunState.RESUME:
            first = Path(recipe.output_dir) / INIT_WEIGHTS
            load_strict(teacher, read_hdf5(first).arrays, str(first))
        with RunLog(recipe.output_dir, world, everything, resume=todo is RunState.RESUME) as log:
            if left_out:
                logger.info("starting from %s without its classifier: %s", start.weights, ", ".join(left_out))
            train(
                recipe,
                model,
                data,
                world,
                log,
                param_groups=partial(param_groups, **recipe.sgd),
                write_weights=lambda path, network: save_hdf5(
                    path, network.state_dict(), file_attributes(recipe, data)
                ),
                resume=todo is RunState.RESUME,
                teacher=teacher,
            )


if __name__ == "__main__":
    main()
