"""Prune a trained network in a minute, without training: what the channels that go did, the others take over.

    python tools/prune_now.py src56_train/finish.hdf5 --flops-target 0.6
    python tools/prune_now.py -a torchvision/resnet18 my.pth --dataset folder --data-dir DIR --flops-target 0.75
    python tools/prune_now.py src20_train/finish.hdf5 --flops-target 0.5 --rounds 3      # nearer, three times as long
    python tools/prune_now.py src20_train/finish.hdf5 --latency-target 0.7 --latency-runtime onnxruntime   # of its time
    torchrun --nproc_per_node=2 tools/prune_now.py src56_train/finish.hdf5               # the images shared out

The network, the data and where they are come from the options, else from the weight file and the run.json beside it.
Takes some training images, without their labels, chooses the channels that the network can do without once all that
reads them is refitted (least squares), refits it, says what that changed on training images held out from the refit,
tests both networks on the validation images, and writes finish_converted.hdf5 (with .pth, .safetensors and .pt2 beside
it) and result.json to the output folder. A few minutes for CIFAR networks on two cores. For more accuracy, prune while
training: rr/exp_resrep.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from the checkout without PYTHONPATH

from experiments.asked_latency import AskedLatency
from experiments.command_line import add_file_options, read_share
from experiments.wording import in_options
from training.endings import ends_in_one_line
from training.options import OptionParser, add_options

REFITTING = ("rounds", "places", "ridge", "seed", "held_out")  # options that are settings of `rr.RefitConfig`


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with ends_in_one_line(in_options(arguments, REFITTING)):
        options = parse_arguments(arguments)
        from experiments.pruning_now import pruned_now  # torch takes seconds to import: --help needn't wait for it

        if findings := pruned_now(options):
            print(findings)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line's options.

    Raises:
        SystemExit: with code 2, for an option or a value that it doesn't know.
    """
    parser = OptionParser(description=__doc__)
    parser.add_argument("weights", type=Path, help="the full network's weights: .hdf5, .pth, .pt, .safetensors")
    parser.add_argument("--output-dir", default="pruned_now", help="folder to write to (default: pruned_now)")
    add_pruning_options(parser)
    add_refit_options(parser)
    add_options(parser, AskedLatency(), readers={"latency_target": read_share})
    add_file_options(parser, batch_size=100)
    return parser.parse_args(arguments)


def add_pruning_options(parser: argparse.ArgumentParser) -> None:
    """What is pruned, and how far."""
    group = parser.add_argument_group("what is pruned")
    group.add_argument(
        "--flops-target", type=read_share, help="share of the MACs to keep (default: 0.5; none with --latency-target)"
    )
    group.add_argument("--params-target", type=read_share, help="share of the parameters to keep, as well")
    group.add_argument(
        "--layers",
        choices=("internal", "all"),
        default="internal",
        help="all: residual streams too (default: internal)",
    )
    patterns = {"nargs": "*", "default": [], "metavar": "PATTERN"}
    group.add_argument(
        "--include",
        help="prune only layers whose names fit one of these patterns, 'stage2.*' say",
        **patterns,
    )
    group.add_argument("--exclude", help="keep all channels of the layers whose names fit one of these", **patterns)
    group.add_argument(
        "--width-multiple",
        type=int,
        help="widths are multiples of it (default: 1; with --latency-target 8, or 4, 2, 1 where that is nearer)",
    )
    group.add_argument("--min-width", type=int, default=1, help="least width of a layer (default: 1)")
    group.add_argument(
        "--min-width-share",
        type=read_share,
        default=0.0,
        metavar="SHARE",
        help="... as a share of its own (default: 0)",
    )


def add_refit_options(parser: argparse.ArgumentParser) -> None:
    """How it is refitted, and on what."""
    group = parser.add_argument_group("how it is refitted")
    group.add_argument("--images", type=int, default=2000, help="training images to look at (default: 2000)")
    group.add_argument(
        "--held-out",
        type=read_share,
        default=0.1,
        metavar="SHARE",
        help="share of these images that the network isn't fitted to: they are kept for measuring what the refit is "
        "worth on images that it hasn't seen (default: 0.1)",
    )
    group.add_argument("--rounds", type=int, default=1, help="to the target in so many steps (default: 1)")
    group.add_argument(
        "--places", type=int, default=16, help="places of each image that a layer is looked at in (default: 16)"
    )
    group.add_argument(
        "--ridge", type=float, help="of the least squares, a share of each input's mean square (default: by halves)"
    )
    group.add_argument("--seed", type=int, default=0, help="of the images and of the labels drawn (default: 0)")


if __name__ == "__main__":
    main()
