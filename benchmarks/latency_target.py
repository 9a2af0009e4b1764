"""A share of the time that was asked for, against what other processes measure of the network that came out.

    python benchmarks/latency_target.py                                     # hours; nothing else may run meanwhile
    python benchmarks/latency_target.py --models src56 --runtimes onnxruntime --batch-sizes 1

Each row: rr.prune(..., latency_target=0.7) at one runtime and batch, one thread; both networks are written, and timed
by tools/latency.py, which builds, folds and exports them itself, in five processes one after the other. src56 has the
weights of results/bases/src56/s0, the others random ones (BN too), refitted on a few random images: what is judged here
is time, not accuracy. Bar: their median is within 3% of what was asked. Writes results/latency_target.json after each
row; rows that it has from this commit aren't done again; then run tools/results_table.py. Needs
`pip install "resrep[export]" timm`.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from the checkout without PYTHONPATH

from benchmarks.at_one_commit import held, made_with
from benchmarks.timed_networks import SIZES, images_for, network, rows_by_the_tool
from rr import InputError, Timing, prune
from rr.whole_files import write_text_whole
from training import init_world
from training.endings import ends_in_one_line
from training.options import OptionParser

RUNTIMES, BATCHES = ("eager", "onnxruntime", "openvino"), (1, 64)
PROCESSES, SECONDS = 5, 3.0  # of their own, as where a runtime puts a network in memory is another in each
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
        around = made_with(world, PACKAGES)
        rows: list[dict[str, Any]] = held(options.output, around, "rows") or []
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
    model, size, images = network(name), SIZES[name], images_for(name)
    began = time.perf_counter()
    try:
        slim = prune(model, images[0], images, latency_target=asked, timing=timing)
    except InputError as error:
        return {"image_size": size, "error": str(error)}
    seconds = time.perf_counter() - began
    fresh = [share_in_a_fresh_process(name, {"base.hdf5": model, "slim.hdf5": slim}, timing) for _ in range(PROCESSES)]
    return {
        "image_size": size,
        "seconds": seconds,
        "found": slim.refit_report.latency.as_dict(),
        "fresh": {"median": statistics.median(fresh), "low": min(fresh), "high": max(fresh)},
    }


def share_in_a_fresh_process(name: str, networks: Mapping[str, nn.Module], timing: Timing) -> float:
    """The narrow network's share of the full one's time, by tools/latency.py."""
    _, row = rows_by_the_tool(name, networks, [timing.runtime], [timing.batch], SECONDS)
    return 1 / float(row["times_faster"])


if __name__ == "__main__":
    main()
