"""A network's file as ONNX, OpenVINO or a torch.export program, checked in the runtime that will run it.

    python tools/export.py resrep_models/src56_train/finish_converted.safetensors --format onnx
    python tools/export.py pruned_now/finish_converted.safetensors --format openvino --output shipped/net.xml
    python tools/export.py pruned_now/finish_converted.safetensors --format onnx --int8 --calibrate DIR

Takes .safetensors, .hdf5 and .pth files. The exported network takes any batch, and any height and width where the
network does. It is run at two batches and two sizes, each output compared with the model's in float64; the differences
are printed and written to a .json file beside. Exit code 1: more than float32's own error explains.

--int8 (ONNX alone) quantises weights and activations after training: ranges from images in DIR/train, then the accuracy
of both forms on those in DIR/val, printed and written beside. Needs `pip install "resrep[export]"`.
"""

from __future__ import annotations

import argparse
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
    arguments = sys.argv[1:] if arguments is None else arguments
    with ends_in_one_line(in_options(arguments)):
        options = parse_arguments(arguments)
        from experiments.exporting import exported  # torch takes seconds to import: --help needn't wait for it

        text, is_equal = exported(options)
        print(text)
    if not is_equal:
        sys.exit(1)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line's options.

    Raises:
        SystemExit: with code 2, for an option or a value that it doesn't know.
    """
    parser = OptionParser(description=__doc__)
    parser.add_argument("weights", type=Path, help="the network's file: .safetensors, .hdf5, .pth")
    parser.add_argument("--format", choices=("onnx", "pt2", "openvino"), required=True)
    parser.add_argument("--output", type=Path, help="file to write (default: beside the network's file)")
    parser.add_argument(
        "-a", "--arch", help=f"network (default: what the file names): {', '.join(model_names())}, {WHERE_ELSE}"
    )
    parser.add_argument("--image-size", type=int, help="height and width of the images (default: the file's, else 224)")
    eight = parser.add_argument_group("int8")
    eight.add_argument("--int8", action="store_true", help="quantise weights and activations, after training")
    eight.add_argument("--calibrate", type=Path, metavar="DIR", help="images: DIR/train/CLASS and DIR/val/CLASS")
    eight.add_argument("--calibration-images", type=int, default=256, help="of DIR/train, at most (default: 256)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
