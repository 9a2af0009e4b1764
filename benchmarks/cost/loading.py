"""Whether loading keeps up with training: images a second of the loader alone, augmentation included, and of steps.

    python benchmarks/cost/loading.py --cifar DIR                 # folders train/ and test/ of small images; 2 minutes
    python benchmarks/cost/loading.py --cifar DIR --imagenet DIR  # and of photographs: 5 minutes

Writes results/loading.json. Bar: small images load at least 20 times as fast as src20 trains here (bfloat16, batch
128), so that a machine 20 times as fast isn't kept waiting. Small images are decoded when the data set is loaded, which
isn't counted, and come from memory; photographs are decoded in worker processes (--workers). Nothing else may run
meanwhile.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from the checkout without PYTHONPATH

from base_model import build_model
from data import Data, load_data
from rr import param_groups
from rr.whole_files import write_text_whole
from training import ends_in_one_line, init_world, surroundings

TIMES_FASTER = 20
BATCHES = {"small images": 128, "photographs": 32}
NETWORKS = {"small images": ("src20", "src56"), "photographs": ("sres50",)}
SIZES = {"small images": 32, "photographs": 224}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--cifar", required=True, help="folder with train/ and test/, of small images")
    parser.add_argument("--imagenet", help="the same with photographs")
    parser.add_argument("--workers", type=int, help="loader processes or threads (default: the data set's choice)")
    parser.add_argument("--steps", type=int, default=20, help="timed training steps of each network")
    parser.add_argument("--batches", type=int, default=400, help="timed batches of each kind")
    parser.add_argument("--output", type=Path, default=Path("results/loading.json"))
    options = parser.parse_args(arguments)
    folders = {"small images": options.cifar} | ({"photographs": options.imagenet} if options.imagenet else {})
    with ends_in_one_line():
        found = {
            kind: measure(
                kind, load_data("folder", data_dir=folder, image_size=SIZES[kind], workers=options.workers), options
            )
            for kind, folder in folders.items()
        }
    passed = found["small images"]["networks"]["src20"]["loader_times_faster"] >= TIMES_FASTER
    result = {
        **found,
        "bars": {f"loader {TIMES_FASTER} times as fast as src20": passed},
        **surroundings(init_world("cpu")),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_text_whole(options.output, json.dumps(result, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def measure(kind: str, data: Data, options: argparse.Namespace) -> dict[str, Any]:
    """Images a second of the loader, in the better of two epochs, and of training steps.

    Args:
        kind: a key of `BATCHES`.
        data: the data set.
        options: the command line's.
    """
    speed = max(loading_speed(data, epoch, BATCHES[kind], options.batches) for epoch in range(2))
    networks = {}
    for name in NETWORKS[kind]:
        trained = training_speed(name, BATCHES[kind], SIZES[kind], options.steps)
        networks[name] = {"images_per_s": trained, "loader_times_faster": speed / trained}
    return {
        "images": data.num_train,
        "batch": BATCHES[kind],
        "workers": options.workers,
        "images_per_s": speed,
        "networks": networks,
    }


def loading_speed(data: Data, epoch: int, batch_size: int, batches: int) -> float:
    """Images a second over the first batches of an epoch, including the loader's start."""
    began = time.perf_counter()
    taken: Iterator[Any] = islice(
        data.train_batches(epoch, batch_size=batch_size, seed=0, device=torch.device("cpu")), batches
    )
    images = sum(len(batch.images) for batch in taken)
    return images / (time.perf_counter() - began)


def training_speed(name: str, batch_size: int, size: int, steps: int) -> float:
    """Images a second of plain training steps under bfloat16 autocast, in channels-last format; the median step."""
    torch.manual_seed(0)
    model = build_model(name).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(param_groups(model, lr=1e-3, momentum=0.9, weight_decay=1e-4), lr=1e-3)
    images = torch.randn(batch_size, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch_size,))
    times = []
    for _ in range(steps + 2):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(images)
        F.cross_entropy(scores.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - began)
    return batch_size / statistics.median(times[2:])


if __name__ == "__main__":
    main()
