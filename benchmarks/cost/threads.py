"""Why a second thread helps a training step so little: what each kind of operation takes with one thread and with more.

    python benchmarks/cost/threads.py        # src56, batch 64, bfloat16; 2 minutes on 2 free cores

Writes results/threads.json: of the unpruned network and of plain ones with the widths that a pruning run leaves (as
they come out, and in multiples of 8), the milliseconds of a step and of each kind of operation by itself, as torch's
profiler counts them; and those of batch norm alone, forward and backward, at several widths. Nothing else may run
meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from the checkout without PYTHONPATH

import torch
from torch import nn

from benchmarks.cost.training_figures import FLOOR, PLAIN
from benchmarks.cost.training_steps import profile, timed_in_turn
from benchmarks.cost.training_variants import Setting, Training, training_of
from rr.whole_files import write_text_whole
from training import ends_in_one_line, init_world, surroundings
from training.allocator import keep_freed_memory

WARMUP = 3  # steps of each, untimed


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", default="src56", help="one of our CIFAR networks")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, torch.get_num_threads()}))
    parser.add_argument("--widths", type=int, nargs="+", default=[4, 7, 8, 12, 15, 16, 24, 31, 32, 64])
    parser.add_argument("--rounds", type=int, default=10, help="timed steps of each")
    parser.add_argument("--output", type=Path, default=Path("results/threads.json"))
    options = parser.parse_args(arguments)
    with ends_in_one_line():
        keep_freed_memory()
        setting = Setting(options.model, options.precision, batch=options.batch)
        networks = {
            "unpruned": training_of(PLAIN, setting),
            "narrow, any widths": training_of(FLOOR, replace(setting, width_multiple=1), at_target=True),
            "narrow, multiples of 8": training_of(FLOOR, setting, at_target=True),
        }
        around = surroundings(init_world("cpu"))
        found = {str(threads): of_threads(networks, threads, options.rounds) for threads in options.threads}
        norms = {str(width): of_width(setting, width, options.threads, options.rounds) for width in options.widths}
        result = {"model": options.model, "precision": options.precision, "batch": options.batch}
        result |= {"by_threads": found, "batch_norm": norms}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_text_whole(options.output, json.dumps({**around, **result}, indent=1) + "\n")
        print(json.dumps(norms, indent=1))


def of_threads(networks: dict[str, Training], threads: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Milliseconds of a step of each network, and of its kinds of operations, with this number of threads."""
    torch.set_num_threads(threads)
    times = timed_in_turn(networks, WARMUP, rounds)
    found = {}
    for name, training in networks.items():
        ms = sorted(1000 * of_round[name] for of_round in times)
        found[name] = {"ms": ms[len(ms) // 2], "kinds": profile(training)}
    return found


def of_width(setting: Setting, width: int, threads: Sequence[int], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a batch norm of this many channels, on [batch, width, size, size], by number of threads."""
    dtype = torch.bfloat16 if setting.precision == "bfloat16" else torch.float32
    shape = (setting.batch, width, setting.image_size, setting.image_size)
    images, gradient = (torch.randn(shape).to(dtype).to(memory_format=torch.channels_last) for _ in range(2))
    images.requires_grad_()
    norm = nn.BatchNorm2d(width)
    found = {}
    for count in threads:
        torch.set_num_threads(count)
        times: dict[str, list[float]] = {"forward": [], "backward": []}
        for _ in range(WARMUP + rounds):
            began = time.perf_counter()
            outputs = norm(images)
            between = time.perf_counter()
            outputs.backward(gradient)
            times["backward"].append(time.perf_counter() - between)
            times["forward"].append(between - began)
        found[str(count)] = {name: 1000 * statistics.median(those[WARMUP:]) for name, those in times.items()}
    return found


if __name__ == "__main__":
    main()
