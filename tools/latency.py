"""How much faster a pruned network is than its base: in torch, compiled, in ONNX Runtime and in OpenVINO.

    python tools/latency.py src56_train/finish.hdf5 resrep_models/src56_train/finish_converted.safetensors
    python tools/latency.py BASE.pth PRUNED.hdf5 -a torchvision/resnet50 --runtimes eager onnxruntime --batch-sizes 1 16

The network is the one that either file names (a pruned one's card does), else -a. Both with BN folded, on random
images, on the CPU, at every batch, precision and number of threads. They run in turn, in blocks of some 20 ms, so that
a machine's slow moments hit both; medians and quartiles over the rounds. Beside it the promise: how many times fewer
MACs the pruned network has; and the share of it that became time. Then each layer's MACs and time in torch at the
largest batch, and which of its widths take longer than the next multiple of 8. Writes latency.csv (timm benchmark's
column names), latency.png and latency_layers.csv. Nothing else may run meanwhile.

All of it on a small network takes some minutes, most of them compiling: --runtimes eager onnxruntime openvino is
without. What a runtime hasn't got on this machine (bfloat16) is left out, with the reason. ONNX Runtime and OpenVINO
need `pip install "resrep[export]"`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from the checkout without PYTHONPATH

from base_model import WHERE_ELSE, model_names
from experiments.wording import in_options
from rr.latency.settings import BATCHES, PRECISIONS, RUNTIMES
from training.endings import ends_in_one_line
from training.options import OptionParser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with ends_in_one_line(in_options(arguments)):
        options = parse_arguments(arguments)
        from experiments.latency.measuring import measured  # torch takes seconds to import: --help needn't wait for it

        print(measured(options))


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line's options.

    Raises:
        SystemExit: with code 2, for an option or a value that it doesn't know.
    """
    parser = OptionParser(description=__doc__)
    parser.add_argument("base", type=Path, help="the full network's file: .hdf5, .pth, .safetensors")
    parser.add_argument("pruned", type=Path, help="the pruned network's file")
    parser.add_argument("--output", type=Path, default=Path("latency.csv"), help="default: latency.csv")
    parser.add_argument(
        "-a", "--arch", help=f"network (default: what the files name): {', '.join(model_names())}, {WHERE_ELSE}"
    )
    parser.add_argument("--image-size", type=int, help="height and width of the images (default: the files', else 224)")
    how = parser.add_argument_group("what is measured")
    how.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=RUNTIMES, help="default: all")
    how.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="default: both")
    how.add_argument("--batch-sizes", nargs="+", type=int, default=BATCHES, metavar="N", help="default: 1 16 64")
    how.add_argument("--threads", nargs="+", type=int, metavar="N", help="default: 1, and as many as torch takes")
    how.add_argument("--seconds", type=float, default=1.0, help="for each setting, at least 5 rounds (default: 1)")
    how.add_argument("--layers", action=argparse.BooleanOptionalAction, default=True, help="layer by layer, too")
    options = parser.parse_args(arguments)
    if min([*options.batch_sizes, *(options.threads or [1])]) < 1:
        parser.error("--batch-sizes and --threads must be at least 1")
    return options


if __name__ == "__main__":
    main()
