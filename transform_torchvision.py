"""torchvision's ResNet-50, 101 or 152 as a base model: same weights, our names, in HDF5.

    python transform_torchvision.py                          # downloads, writes torchvision_res50.hdf5
    python transform_torchvision.py -a sres101 --weights resnet101.pth

Without --weights it downloads torchvision's IMAGENET1K_V1 weights, which the paper starts from (section 4.1; ResNet-50:
76.15% top-1, 98 MB). It writes only after both networks gave the same logits on random images. Takes seconds on a CPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.endings import ends_in_one_line
from training.options import OptionParser

ARCHS = ("sres50", "sres101", "sres152")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the weights, prove that both networks are the same, and write ours."""
    with ends_in_one_line():
        args = parse_args(sys.argv[1:] if arguments is None else arguments)
        from experiments.torchvision_weights import transform  # torch takes seconds to import: --help needn't wait

        for line in transform(args.arch, args.weights, args.output):
            print(line)


def parse_args(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line's options.

    Raises:
        SystemExit: with code 2, for an option or a value that it doesn't know.
    """
    parser = OptionParser(description=__doc__)
    parser.add_argument("-a", "--arch", choices=ARCHS, default="sres50", help="the network (default: sres50)")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="a torchvision state dict (.pth); default: download"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: torchvision_res50.hdf5 (res101, res152)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
