"""Test any weight file that this project writes: base, in training (with its compactors) or converted.

    python tools/evaluate.py resrep_models/src56_train/finish_converted.hdf5
    python tools/evaluate.py PRUNED.hdf5 --against BASE.hdf5 --output comparison.json
    python tools/evaluate.py -a src20 src20_train/finish.hdf5 --dataset folder --data-dir DIR
    python tools/evaluate.py -a torchvision/resnet18 my_checkpoint.pth --dataset imagenet

The network, the data and where they are come from the options, else from the file and the run.json beside it; but
FILE.py:FUNCTION always needs -a, since no weight file may decide what code runs here. A file from elsewhere (.pth, .pt,
.safetensors) needs -a, and --dataset unless the network is one of ours.

Prints what the file is, its accuracy on the validation data, its MACs and parameters; with --against the same of both
files side by side, with milliseconds per image (both with BN folded, each at the number of threads that suits it best)
and bytes on disk, and with how certain the difference between their accuracies is: validation images are a sample.
--output writes the figures as JSON, together with what the runs beside the files say about their recipes, and what this
machine is. Takes a minute on CIFAR, on ImageNet a pass over the validation images and a few minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from the checkout without PYTHONPATH

from experiments.command_line import add_file_options
from experiments.wording import in_options
from training.endings import ends_in_one_line
from training.options import OptionParser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with ends_in_one_line(in_options(arguments)):
        options = parse_arguments(arguments)
        from experiments.testing import examined  # torch takes seconds to import: --help needn't wait for it

        print(examined(options))


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line's options.

    Raises:
        SystemExit: with code 2, for an option or a value that it doesn't know.
    """
    parser = OptionParser(description=__doc__)
    parser.add_argument("weights", type=Path, help="a file of weights: .hdf5, .pth, .pt, .safetensors")
    parser.add_argument("--against", type=Path, help="another weight file, to compare with: the base network's")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    machine = add_file_options(parser, batch_size=256)
    machine.add_argument("--amp", action=argparse.BooleanOptionalAction, default=False, help="bfloat16 autocast")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
