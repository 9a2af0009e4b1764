"""Pruned without training: what is left of a network's accuracy at the cut, against L1 and Torch-Pruning's importances.

    python benchmarks/studies/prune_now.py --data-dir DIR                      # src56 from results/bases
    python benchmarks/studies/prune_now.py --data-dir DIR --targets 0.47 --draws 0 --ways "ResRep's refit"
    python benchmarks/studies/prune_now.py -a timm/tf_efficientnet_lite0 --data-dir DIR --data-name "ImageNet samples"

Each way gets the same images (2,000 training images; three draws), prunes the same layers (those inside the blocks) to
at most a share of the MACs, with its package's defaults, and is tested on all test images, as it is and with batch
norm's statistics anew from those images. Ours sees no labels, and its statistics stay. EfficientNet-Lite0 has its
published ImageNet weights; half of the images in DIR, a folder per class, is for the fit, the other half for the
test. Each cut has a process of its own, whose seconds and memory are noted. Cuts that the file has are not made again.
Writes results/prune_now.json and .png; then run tools/results_table.py. A minute for each of ours on one core, from
seconds to minutes for the others.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from the checkout without PYTHONPATH

from benchmarks.processes import in_processes
from benchmarks.studies.one_shot import OURS, WAYS, cut, with_statistics_anew
from benchmarks.studies.one_shot_plot import plot_cuts
from benchmarks.studies.subjects import IMAGENET, subject
from rr.whole_files import write_text_whole
from training import count_macs, init_world, surroundings

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 3600  # for one cut


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the cuts that the file lacks; each is on disk as soon as it is known."""
    options = parse_arguments(arguments)
    results: dict[str, Any] = json.loads(options.output.read_text()) if options.output.exists() else {"cuts": {}}
    names = [
        f"{options.arch} {target:g} {draw} {way}"
        for target in options.targets
        for draw in options.draws
        for way in options.ways
    ]
    todo = [name for name in names if name not in results["cuts"]]
    results |= {**surroundings(init_world("cpu")), "threads": options.threads}
    each = (options.data_dir, options.bases, options.images, options.threads)
    for name, found in in_processes(measured, todo, each, options.jobs, LIMIT_S):
        results["cuts"][name] = {**found, "data": options.data_name, "commit": results["commit"]}
        write_text_whole(options.output, json.dumps(results, indent=1) + "\n")
        print(f"{name}: {found}", flush=True)
    plot_cuts(results, options.output.with_suffix(".png"))


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options.

    Raises:
        SystemExit: with code 2, for an option or a value that it doesn't know.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--data-dir", type=Path, required=True, help=f"with train/ and test/, a folder per class; {IMAGENET}: of those"
    )
    parser.add_argument(
        "-a", "--arch", default="src56", help=f"a network of the bases, or {IMAGENET} (default: %(default)s)"
    )
    parser.add_argument("--data-name", default="CIFAR-10 (JPEG copies)", help="what the figures call the data")
    parser.add_argument("--bases", type=Path, default=ROOT / "results/bases", help="folder with ARCH/s0/finish.hdf5")
    parser.add_argument("--targets", type=float, nargs="+", default=[0.8, 0.6, 0.47, 0.35], help="shares of the MACs")
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2], help="of the images")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--images", type=int, default=2000, help="to fit with, at most (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="cuts side by side")
    parser.add_argument("--threads", type=int, default=1, help="of each")
    parser.add_argument("--output", type=Path, default=ROOT / "results/prune_now.json")
    return parser.parse_args(arguments)


def measured(name: str, data_dir: Path, bases: Path, images: int, threads: int) -> dict[str, Any]:
    """Make one cut in this process, and test it.

    Args:
        name: network, share of the MACs, draw of the images, way.
        data_dir: of the images.
        bases: of the trained network.
        images: how many to fit with.
        threads: torch's.
    """
    torch.set_num_threads(threads)
    arch, share, draw, way = name.split(" ", 3)
    whole = subject(arch, data_dir, bases, images, int(draw))
    model, inputs = whole.model, whole.images
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, began_cpu = time.perf_counter(), time.process_time()
    slim = cut(way, model, inputs, whole.labels, float(share))
    found: dict[str, Any] = {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - began_cpu, 1),
        "mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024,
        "images": sum(map(len, inputs)),
        "macs_ratio": count_macs(slim, inputs[0][:1]) / count_macs(model, inputs[0][:1]),
        "base": whole.top1(model),
        "top1": whole.top1(slim),
    }
    if way != OURS:
        found["top1_statistics_anew"] = whole.top1(with_statistics_anew(slim, inputs))
    return found


if __name__ == "__main__":
    main()
