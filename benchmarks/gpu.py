"""All that this project wants to know of a GPU, in parts of at most eight minutes, each of which can be gone on with.

    python benchmarks/gpu.py --cifar cifar10-jpeg.tar.gz      # until 8 minutes are over; again, until nothing is left
    python benchmarks/gpu.py --parts tests steps --seconds 200
    python benchmarks/gpu.py --dry-run                        # all parts at a tiny size on the CPU: minutes

A part's file, results/gpu/PART.json, is written when it is done, and a part that has one isn't done again. The paper's
run (240 epochs of base training, 480 of pruning) is stopped in time, with a checkpoint, and packed into
results/gpu/runs.tar, from which the next call goes on, on any machine. Without a GPU all is a dry run: its files are
dry_run_PART.json, and no figure in them means anything. docs/gpu.md says what each part gives.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from the checkout without PYTHONPATH

from benchmarks.gpu_parts import LEFT, PARTS, Setting, run_part
from benchmarks.processes import in_processes
from rr.errors import InputError
from rr.whole_files import write_text_whole
from training import ends_in_one_line

SECONDS, MARGIN = 470, 20  # of a call; what a process that is to stop may take for that


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all, in this order")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "gpu", help="folder of the result files")
    parser.add_argument("--cifar", type=Path, help="CIFAR-10 as folders train/ and test/ of images, or a tar of them")
    parser.add_argument("--base", type=Path, help="trained src56.hdf5 to prune; else it is trained first")
    parser.add_argument("--seconds", type=float, help=f"that the call may take; default: {SECONDS}, of a dry run any")
    parser.add_argument("--dry-run", action="store_true", help="at a tiny size on the CPU; as always without a GPU")
    options = parser.parse_args(arguments)
    with ends_in_one_line():
        for path in (options.cifar, options.base):
            if path is not None and not path.exists():
                raise InputError(f"there is no {path}: give another --cifar or --base, or leave it out")
        setting = setting_of(options)
        setting.output.mkdir(parents=True, exist_ok=True)
        left = [end for part in options.parts if (end := done(part, setting)) is not None]
    for end in left:
        print(f"left: {end.part} ({end.why})")
    if not left:
        print("nothing is left" + (": these parts work, nothing was measured" if setting.dry_run else ""))
    if any(end.is_failure for end in left):
        sys.exit(1)


def setting_of(options: argparse.Namespace) -> Setting:
    """What the command line asks for, as far as this machine can do it."""
    dry_run = options.dry_run or not torch.cuda.is_available()
    if dry_run and not options.dry_run:
        print("no CUDA device: a dry run, at a tiny size on the CPU", flush=True)
    seconds = options.seconds or (float("inf") if dry_run else SECONDS)
    return Setting(
        output=options.output.resolve(),
        device="cpu" if dry_run else "cuda",
        dry_run=dry_run,
        cifar=options.cifar and options.cifar.resolve(),
        base=options.base and options.base.resolve(),
        until=time.time() + seconds,
    )


@dataclass(frozen=True)
class NotDone:
    """A part that has no result yet, and why."""

    part: str
    why: str
    is_failure: bool = False


def done(part: str, setting: Setting) -> NotDone | None:
    """Do a part, unless it was done before; None if it is done now."""
    if setting.file(part).exists():
        print(f"{part}: is in {setting.file(part)} already", flush=True)
        return None
    if setting.seconds_left < PARTS[part].seconds:
        seconds = max(setting.seconds_left, 0)
        return NotDone(part, f"takes some {PARTS[part].seconds} s, {seconds:.0f} s are left of this call")
    print(f"{part}: begun", flush=True)
    limit = setting.seconds_left + MARGIN
    ((_, result),) = in_processes(run_part, [part], (setting,), 1, limit)
    if "failed" in result:
        return NotDone(part, result["failed"], is_failure=True)
    if LEFT in result:
        return NotDone(part, result[LEFT])
    write_text_whole(setting.file(part), json.dumps(result, indent=1) + "\n")
    print(f"{part}: {json.dumps(result['figures'])[:2000]}", flush=True)
    return None


if __name__ == "__main__":
    main()
