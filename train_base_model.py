"""Train a network from scratch: the one that is pruned afterwards.

    python train_base_model.py -a src56                              # CIFAR-10, 240 epochs, to src56_train/
    torchrun --nproc_per_node 8 train_base_model.py -a sres50 --amp  # ImageNet, 90 epochs, to sres50_train/
    python train_base_model.py -a src20 --dataset digits --epochs 10 --schedule cosine   # minutes on a laptop

The paper's ResNet-56 has 93.71% top-1 (section 4.1). Stopped runs go on with `-c continue`. A run's folder holds
log.txt, metrics.jsonl, run.json, tensorboard/, init.hdf5, latest.pth, finish.pth, finish.hdf5.
"""

import argparse
import sys
from collections.abc import Sequence

import torch

from base_model import model_info, model_names
from data import load_data
from rr import param_groups
from rr.files import save_hdf5
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
    exit_on_bad_input,
    file_attributes,
    first_rank_first,
    from_options,
    init_world,
    network_builder,
    parse_choice,
    prepare,
    to_plain,
    train,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    with exit_on_bad_input():
        recipe, options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
        run(recipe, options.conti_or_fs, options.local_rank)


def parse_arguments(arguments: Sequence[str]) -> tuple[Recipe, argparse.Namespace]:
    """The network's own recipe with what the command line changes in it. Exits with 2 for what it doesn't know."""
    arch = parse_choice(arguments, "-a", "--arch", choices=model_names(), help="network")
    recipe = base_recipe(arch)
    parser = argparse.ArgumentParser(
        usage="%(prog)s -a NAME [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_continue(parser)
    add_local_rank(parser)
    add_options(parser, recipe)
    options = parser.parse_args(arguments)
    return from_options(options, recipe), options


def run(recipe: Recipe, conti_or_fs: str | None = None, local_rank: int | None = None) -> None:
    """Train as the recipe says; raises ValueError for what a person can put right."""
    with init_world(recipe.device, local_rank) as world:
        with first_rank_first(world):
            image_size = recipe.image_size or model_info(recipe.arch).image_size
            data = load_data(recipe.dataset, recipe.data_dir, image_size, recipe.workers)

        torch.manual_seed(recipe.seed)
        model = network_builder(recipe.arch, data)()
        check_fits(model, data)

        todo = prepare(recipe.output_dir, to_plain(recipe), conti_or_fs) if world.is_first else None
        todo = broadcast_object(world, todo)
        if todo is RunState.FINISHED:
            if world.is_first:
                print(
                    f"{recipe.output_dir} holds the finished run of this recipe: nothing to do ('-c fs' starts again)"
                )
            return

        with RunLog(recipe.output_dir, world, to_plain(recipe), resume=todo is RunState.RESUME) as log:
            train(
                recipe,
                model,
                data,
                world,
                log,
                param_groups=lambda network: param_groups(
                    network,
                    lr=recipe.lr,
                    momentum=recipe.momentum,
                    weight_decay=recipe.weight_decay,
                    bias_lr_factor=recipe.bias_lr_factor,
                ),
                write_weights=lambda path, network: save_hdf5(
                    path, network.state_dict(), file_attributes(recipe, data)
                ),
                resume=todo is RunState.RESUME,
            )


if __name__ == "__main__":
    main()
