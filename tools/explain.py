"""What of a network can be pruned, layer by layer, and why the rest can't.

    python tools/explain.py -a src56
    python tools/explain.py -a torchvision/mobilenet_v2 --image-size 224
    python tools/explain.py -a my_models.py:build --in-channels 1 --image-size 28

Prints a table (width, MACs, with whom a layer shares its channels, or why they stay), a line per cause, and the share
of the MACs that can go. Seconds for any CNN.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from the checkout without PYTHONPATH

import rr
from base_model import build_any, model_info, model_names
from rr.conversion import rehearse
from rr.graph import ChannelGraph
from training import exit_on_bad_input


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    names = ", ".join(model_names())
    parser.add_argument("-a", "--arch", required=True, help=f"{names}, torchvision/NAME, timm/NAME, FILE.py:FUNCTION")
    parser.add_argument(
        "--image-size", type=int, help="height and width of the images (default: the network's, else 224)"
    )
    parser.add_argument("--in-channels", type=int, help="channels of the images (default: the network's, else 3)")
    options = parser.parse_args(arguments)
    with exit_on_bad_input():
        explain(options.arch, options.image_size, options.in_channels)


def explain(name: str, image_size: int | None, in_channels: int | None) -> None:
    """Trace and print; raises ValueError for what a person can put right."""
    known = model_info(name) if name in model_names() else None
    size = image_size or (known.image_size if known else 224)
    channels = in_channels or (known.in_channels if known else 3)
    model, images = build_any(name, in_channels=channels, image_size=size).eval(), torch.zeros(1, channels, size, size)
    graph = ChannelGraph(model, images)
    graph = rehearse(model, graph, images, graph.prunable)
    print(rr.explain(graph))
    full = np.ones(graph.num_units, dtype=bool)
    print(f"\n{name} at {channels} x {size} x {size}: {graph.macs(full):,} MACs")
    units = f"{graph.prunable.sum():,} of {graph.num_units:,} units"
    print(f"{units} can go, and with them {graph.removable_share():.1%} of the MACs")
    for cause, units in Counter(graph.reasons.values()).most_common():
        print(f"{units:,} units stay: {cause}")


if __name__ == "__main__":
    main()
