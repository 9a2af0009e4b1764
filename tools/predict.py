"""The five likeliest classes of images, by name, from a pruned network's file alone.

    python tools/predict.py pruned_now/finish_converted.safetensors photograph.jpg another.png
    python tools/predict.py shipped.onnx *.jpg

Takes .safetensors, .pt2 and .onnx files that hold a card with the classes' names and the normalisation: those of a
pruning run, of tools/prune_now.py and of tools/export.py. A .pt2 file is a program: run one only if you trust whoever
made it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from the checkout without PYTHONPATH

from training.endings import ends_in_one_line
from training.options import OptionParser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    parser = OptionParser(description=__doc__)
    parser.add_argument("file", type=Path, help="the network: .safetensors, .pt2, .onnx")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    with ends_in_one_line():
        options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
        from experiments.predicting import predicted  # torch takes seconds to import: --help needn't wait for it

        print(predicted(options.file, options.images))


if __name__ == "__main__":
    main()
