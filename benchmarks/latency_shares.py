"""How much of what fewer MACs promise becomes time: pruned networks against their bases, by runtime, batch and width.

    python benchmarks/latency_shares.py                         # an hour; nothing else may run meanwhile
    python benchmarks/latency_shares.py --models src56          # ten minutes

Each network is pruned at once to 47% of its MACs, its widths as they fall, in multiples of 8 and of 16 (where these
reach it), and timed by tools/latency.py in a process of its own: one thread, float32, BN folded in both. The share of
the promise is the times that it is faster over the times that it has fewer MACs. src56 has the weights of
results/bases/src56/s0, the others random ones: what is judged here is time. Bars: in the better one of ONNX Runtime and
OpenVINO 88% at a batch of 1 and 95% at the larger ones, 80% in torch. Writes results/latency.json after each network,
and all rows as results/latency.csv in timm benchmark's columns; networks that it has from this commit aren't done
again; then run tools/results_table.py. Needs `pip install "resrep[export]" timm`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from the checkout without PYTHONPATH

from benchmarks.at_one_commit import held, made_with
from benchmarks.timed_networks import SIZES, images_for, network, rows_by_the_tool
from experiments.latency.tables import as_csv
from rr import InputError, prune
from rr.whole_files import write_text_whole
from training import init_world
from training.endings import ends_in_one_line
from training.options import OptionParser

TARGET, MULTIPLES = 0.47, (1, 8, 16)  # of the MACs; of the widths
RUNTIMES = ("eager", "onnxruntime", "openvino")
BATCHES = {32: (1, 16, 64), 224: (1, 16)}  # by the size of the images: 64 large ones take seconds a batch
SECONDS = 4.0  # for each runtime and batch
PACKAGES = ("onnx", "onnxruntime", "openvino", "torchvision", "timm")


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the networks that the file lacks, print and write."""
    parser = OptionParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=tuple(SIZES), default=tuple(SIZES), help="default: all")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "latency.json")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with ends_in_one_line(), init_world("cpu") as world:
        torch.set_num_threads(1)
        around = made_with(world, PACKAGES)
        networks: dict[str, dict[str, Any]] = held(options.output, around, "networks") or {}
        for name in options.models:
            if name not in networks:
                networks[name] = measured(name)
                write_text_whole(options.output, json.dumps({**around, "networks": networks}, indent=1) + "\n")
                rows = [row for found in networks.values() for row in found["rows"]]
                write_text_whole(options.output.with_suffix(".csv"), as_csv(rows))
            print(as_csv(networks[name]["rows"]), flush=True)


def measured(name: str) -> dict[str, Any]:
    """One network at each multiple of the widths, in each runtime, at each batch; and which multiples can't be had."""
    full, images = network(name), images_for(name)
    short = name.rpartition("/")[2]
    networks, multiples, left_out = {f"{short}.hdf5": full}, {}, {}
    for multiple in MULTIPLES:
        try:
            slim = prune(full, images[0], images, flops_target=TARGET, width_multiple=multiple)
        except InputError as error:
            left_out[str(multiple)] = str(error)
            continue
        file = f"{short}_{multiple}.hdf5"
        networks[file], multiples[file] = slim, multiple
    rows = rows_by_the_tool(name, networks, RUNTIMES, BATCHES[SIZES[name]], SECONDS)
    return {
        "rows": [{"network": name, "width_multiple": multiples.get(row["model"], ""), **row} for row in rows],
        "left_out": left_out,
    }


if __name__ == "__main__":
    main()
