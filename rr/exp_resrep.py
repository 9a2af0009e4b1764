"""Prune a trained network with ResRep, fold it into a narrow plain one, and test that.

    python rr/exp_resrep.py -a src56                                  # CIFAR-10, 480 epochs, 47.1% of the MACs kept
    torchrun --nproc_per_node=8 rr/exp_resrep.py -a sres50            # ImageNet, 180 epochs, 45.5% of the MACs kept
    python rr/exp_resrep.py -a src20 --dataset folder --data-dir DIR   # your own images; 12 epochs
    python rr/exp_resrep.py -a src56 --fast --epochs 25                # another length: all schedules scale with it
    python rr/exp_resrep.py -a torchvision/mobilenet_v2 --dataset imagenet --weights default   # from anywhere
    python rr/exp_resrep.py -a my_models.py:build --dataset folder --data-dir DIR --weights my_checkpoint.pth
    python rr/exp_resrep.py -a src56 --fast --start refit              # cut at once, refitted; narrow in every step
    python rr/exp_resrep.py -a src20 --latency-target 0.7 --latency-runtime onnxruntime    # of the time, one image
    python rr/exp_resrep.py -a src20 --distill 0.5 --temperature 4    # the unpruned network as teacher

The first two are the paper's runs. For every other network the settings are those of a short run
(`rr.fast_config`), as with --fast; --no-fast gives the paper's rule for it. Single options change either.

It starts from src56_train/finish.hdf5 (`train_base_model.py -a src56`) or torchvision_res50.hdf5
(`transform_torchvision.py`), or from --weights: a file (.pth, .pt, .safetensors, .hdf5), or `default` for what
torchvision or timm has to download. The paper has 93.71% before and after for ResNet-56 (-52.9% MACs, section 4.1),
76.15% before and after for ResNet-50 (-54.5% MACs, section 4.2; 53 hours on 8 GPUs).

Writes to resrep_models/{arch}_train/: log.txt, metrics.jsonl, run.json, tensorboard/, init.hdf5,
before_first_mask.hdf5, epoch-{e}.hdf5, latest.pth, finish.hdf5, finish_converted.hdf5 (and .pth), result.json. A run
that was stopped goes on with `-c continue`, which needs no other option but -a (and --output-dir); a folder with
finish.hdf5 is converted and tested, one with finish_converted.hdf5 is tested.

Exit status: 0 where the target is reached, 3 where all is done but more is left than was asked for (the last line says
why; under torchrun it is 0), 2 for a mistake, 130 and 143 for a run that was stopped (Ctrl-C, SIGTERM).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
# To run without PYTHONPATH: the checkout takes the place of this folder, which Python puts first on the path.
sys.path[:] = [str(HERE.parent), *(place for place in sys.path if place != str(HERE))]

from experiments.asked_latency import AskedLatency
from experiments.command_line import call_of, read_network, read_settings, read_share, read_target, run_parser
from experiments.recipes import PAPER_NETWORKS, fast_recipe, pruning_folder, resrep_config, resrep_recipe
from experiments.starts import PruningStart
from experiments.wording import in_options
from rr.config import ResRepConfig
from rr.errors import InputError
from training.endings import TARGET_MISSED, ends_in_one_line
from training.options import read_ahead
from training.recipe import Recipe
from training.stopping import stop_requests

READERS = {
    **{"flops_target": read_target, "params_target": read_target},
    **{"min_width_share": read_share, "latency_target": read_share},
}
Parsed = tuple[Recipe, ResRepConfig, PruningStart, AskedLatency, argparse.Namespace]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with ends_in_one_line(in_options(arguments)) as ending:
        recipe, config, start, asked, options = parse_arguments(arguments)
        ending.folder = Path(recipe.output_dir)
        if recipe.signal_checkpoint is not None:
            stop_requests().listen_to(recipe.signal_checkpoint)
        from experiments.pruning import prune  # torch takes seconds to import, which --help needn't wait for

        call = call_of(options, __file__, arguments, is_papers=not options.fast)
        is_reached = prune(recipe, config, start, asked, call)
        if not is_reached and int(os.environ.get("WORLD_SIZE", 1)) == 1:  # torchrun would call it a crash, with a page
            sys.exit(TARGET_MISSED)


def parse_arguments(arguments: Sequence[str]) -> Parsed:
    """The network's own recipes with what the command line changes in them.

    Raises:
        SystemExit: with code 2, for an option or a value that it doesn't know.
    """
    arch, dataset = read_network(arguments, pruning_folder)
    fast = read_ahead(arguments, "--fast", action=argparse.BooleanOptionalAction)
    fast = arch not in PAPER_NETWORKS if fast is None else fast
    is_cut = read_ahead(arguments, "--start", "--begin") == "refit"
    if is_cut and not fast:
        raise InputError("--start refit is for a short run: add --fast, or leave it out")
    config = resrep_config(arch, fast=fast, is_cut=is_cut)
    if fast:
        epochs = read_ahead(arguments, "--epochs", type=int)
        start = PruningStart(before_mask_epochs=None, start="refit" if is_cut else "gradual")
        defaults = fast_recipe(arch, dataset, epochs), config, start
    else:
        defaults = resrep_recipe(arch, dataset), config, PruningStart()
    parser = run_parser(__doc__)
    parser.add_argument(
        "--fast",
        action=argparse.BooleanOptionalAction,
        default=fast,
        help="the other options' defaults: settings for a short run, or the paper's; not given: the paper's for "
        + " and ".join(PAPER_NETWORKS)
        + "; with -c continue the run's own settings hold",
    )
    settings, options = read_settings(parser, arguments, *defaults, AskedLatency(), readers=READERS)
    return *settings, options


if __name__ == "__main__":
    main()
