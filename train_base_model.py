"""Train a network, from scratch or from --weights: the one that is pruned afterwards.

    python train_base_model.py -a src56                              # CIFAR-10, 240 epochs, to src56_train/
    torchrun --nproc_per_node 8 train_base_model.py -a sres50 --amp  # ImageNet, 90 epochs, to sres50_train/
    python train_base_model.py -a src20 --dataset digits --epochs 10 --schedule cosine   # minutes on a laptop
    python train_base_model.py -a torchvision/mobilenet_v2 --dataset folder --data-dir DIR \\
        --weights default --new-classifier --lr 0.01 --epochs 20                         # fine-tune ImageNet's weights

Networks: this project's, torchvision/NAME, timm/NAME or FILE.py:FUNCTION, a function in a file of yours that is called
with those of num_classes, in_channels and image_size that it takes. The paper's ResNet-56 has 93.71% top-1 (section
4.1). A stopped run goes on with `-c continue`, which needs no other option but -a (and --output-dir). A run's folder
holds log.txt, metrics.jsonl, run.json, tensorboard/, init.hdf5, latest.pth, finish.pth, finish.hdf5.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from base_model import model_names
from experiments.command_line import call_of, read_network, read_settings, run_parser
from experiments.recipes import base_folder, base_recipe
from experiments.starts import BaseStart
from experiments.wording import in_options
from training.endings import ends_in_one_line
from training.recipe import Recipe
from training.stopping import stop_requests


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with ends_in_one_line(in_options(arguments)) as ending:
        recipe, start, options = parse_arguments(arguments)
        ending.folder = Path(recipe.output_dir)
        if recipe.signal_checkpoint is not None:
            stop_requests().listen_to(recipe.signal_checkpoint)
        from experiments.base_training import train_base  # torch takes seconds to import: --help needn't wait for it

        is_papers = recipe.arch in model_names()
        train_base(recipe, start, call_of(options, __file__, arguments, is_papers=is_papers))


def parse_arguments(arguments: Sequence[str]) -> tuple[Recipe, BaseStart, argparse.Namespace]:
    """The network's own recipe with what the command line changes in it.

    Raises:
        SystemExit: with code 2, for an option or a value that it doesn't know.
    """
    defaults = base_recipe(*read_network(arguments, base_folder)), BaseStart()
    (recipe, start), options = read_settings(run_parser(__doc__), arguments, *defaults)
    return recipe, start, options


if __name__ == "__main__":
    main()
