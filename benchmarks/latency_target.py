"""A share of the time that was asked for, against what a process of its own measures of the network that came out.

    python benchmarks/latency_target.py                                     # hours; nothing else may run meanwhile
    python benchmarks/latency_target.py --models src56 --runtimes onnxruntime --batch-sizes 1

Each row: rr.prune(..., latency_target=0.7) at one runtime and batch, one thread; both networks are written, and timed
by tools/latency.py, which builds, folds and exports them itself. src56 has the weights of results/bases/src56/s0, the
others random ones (BN too), refitted on a few random images: what is judged here is time, not accuracy. Bar: the
process's own share is within 3% of what was asked. Writes results/latency_target.json after each row; rows that it has
from this commit aren't done again; then run tools/results_table.py. Needs `pip install "resrep[export]" timm`.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from the checkout without PYTHONPATH

from base_model import build_any
from rr import InputError, Timing, prune
from rr.weights import load_network, save_converted, save_hdf5
from rr.whole_files import write_text_whole
from training import init_world, surroundings
from training.endings import ends_in_one_line
from training.options import OptionParser

SIZES = {
    "src56": 32,
    "torchvision/resnet18": 224,
    "torchvision/resnet50": 224,
    "torchvision/mobilenet_v2": 224,
    "timm/efficientnet_lite0": 224,
}
WEIGHTS = {"src56": ROOT / "results" / "bases" / "src56" / "s0" / "finish.hdf5"}
RUNTIMES, BATCHES = ("eager", "onnxruntime", "openvino"), (1, 64)
CLASSES, CHANNELS, IMAGES = 10, 3, 32
SECONDS = 8.0  # of the process of its own
PACKAGES = ("onnx", "onnxruntime", "openvino", "torchvision", "timm")


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the rows that the file lacks, print and write."""
    parser = OptionParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=tuple(SIZES), default=tuple(SIZES), help="default: all")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=RUNTIMES, help="default: all")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=BATCHES, metavar="N", help="default: 1 64")
    parser.add_argument("--asked", type=float, default=0.7, help="share of the time (default: 0.7)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "latency_target.json")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with ends_in_one_line(), init_world("cpu") as world:
        torch.set_num_threads(1)
        around = surroundings(world)
        around["versions"] |= {package: importlib.metadata.version(package) for package in PACKAGES}
        rows: list[dict[str, Any]] = []
        if options.output.exists():
            held = json.loads(options.output.read_text())
            rows = held["rows"] if held["commit"] == around["commit"] else []
        for key in keys_of(options.models, options.runtimes, options.batch_sizes, options.asked):
            if not any(key.items() <= row.items() for row in rows):
                rows.append(key | row_of(key["network"], Timing(key["runtime"], batch=key["batch"]), key["asked"]))
                write_text_whole(options.output, json.dumps({**around, "rows": rows}, indent=1) + "\n")
            print(next(row for row in rows if key.items() <= row.items()), flush=True)


def keys_of(
    models: Sequence[str], runtimes: Sequence[str], batches: Sequence[int], asked: float
) -> list[dict[str, Any]]:
    """What each row is known by."""
    return [
        {"network": network, "runtime": runtime, "batch": batch, "asked": asked}
        for network in models
        for runtime in runtimes
        for batch in batches
    ]


def row_of(name: str, timing: Timing, asked: float) -> dict[str, Any]:
    """One network pruned to the share of the time, and timed anew; where that can't be reached, the reason."""
    model, size = network(name), SIZES[name]
    images = torch.randn(IMAGES, CHANNELS, size, size, generator=torch.Generator().manual_seed(0)).split(8)
    began = time.perf_counter()
    try:
        slim = prune(model, images[0], images, latency_target=asked, timing=timing)
    except InputError as error:
        return {"image_size": size, "error": str(error)}
    seconds = time.perf_counter() - began
    return {
        "image_size": size,
        "seconds": seconds,
        "found": slim.refit_report.latency.as_dict(),
        "fresh": in_fresh_process(name, model, slim, timing),
    }


def network(name: str) -> nn.Module:
    """A network in eval mode: trained, or with random weights that leave no BN as it begins."""
    torch.manual_seed(0)
    model = build_any(name, num_classes=CLASSES)
    if name in WEIGHTS:
        full = model
        return load_network(WEIGHTS[name], lambda: full)[0].eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):  # biases of zero would be left out of an export
                module.bias.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def in_fresh_process(name: str, full: nn.Module, slim: nn.Module, timing: Timing) -> dict[str, float]:
    """The share of the time by tools/latency.py: its median and quartiles over the rounds.

    Raises:
        RuntimeError: if it fails.
    """
    attributes = {"arch": name, "num_classes": CLASSES, "in_channels": CHANNELS, "image_size": SIZES[name]}
    with tempfile.TemporaryDirectory() as folder:
        save_hdf5(Path(folder) / "base.hdf5", full.state_dict(), attributes)
        save_converted(Path(folder) / "slim.hdf5", slim, attributes)
        words = ["base.hdf5", "slim.hdf5", "--runtimes", timing.runtime, "--batch-sizes", timing.batch, "--threads", 1]
        words += ["--precisions", timing.precision, "--seconds", SECONDS, "--no-layers", "--output", "latency.csv"]
        command = [sys.executable, str(ROOT / "tools" / "latency.py"), *map(str, words)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"tools/latency.py fails on {name}:\n{done.stderr}")
        *_, row = csv.DictReader((Path(folder) / "latency.csv").read_text().splitlines())
    faster = {"median": "times_faster", "low": "times_faster_q3", "high": "times_faster_q1"}
    return {what: 1 / float(row[column]) for what, column in faster.items()}


if __name__ == "__main__":
    main()
