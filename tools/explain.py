"""What of a network can be pruned, layer by layer, and why the rest can't.

    python tools/explain.py -a src56
    python tools/explain.py -a torchvision/mobilenet_v2 --image-size 224
    python tools/explain.py -a my_models.py:build --in-channels 1 --image-size 28 --num-classes 10

Prints a table (width, MACs, which layers a layer shares its channels with, or why they stay), the share of the MACs
that can go for each choice of --layers in rr/exp_resrep.py, and a line per cause. Takes seconds for any CNN.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from the checkout without PYTHONPATH

from base_model import WHERE_ELSE, model_names
from experiments.wording import in_options
from training.endings import ends_in_one_line
from training.options import OptionParser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    parser = OptionParser(description=__doc__)
    parser.add_argument("-a", "--arch", required=True, help=f"{', '.join(model_names())}, {WHERE_ELSE}")
    parser.add_argument(
        "--image-size", type=int, help="height and width of the images (default: the network's, else 224)"
    )
    parser.add_argument("--in-channels", type=int, help="channels of the images (default: the network's, else 3)")
    parser.add_argument(
        "--num-classes", type=int, help="outputs (default: the network's; 1000 for a function of yours that takes them)"
    )
    arguments = sys.argv[1:] if arguments is None else arguments
    with ends_in_one_line(in_options(arguments)):
        options = parser.parse_args(arguments)
        from experiments.explaining import explained  # torch takes seconds to import: --help needn't wait for it

        print(explained(options.arch, options.image_size, options.in_channels, options.num_classes))


if __name__ == "__main__":
    main()
