"""What several processes cost a pruning step: the share of the exchange of gradients, and of the pruner's hooks.

    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 benchmarks/cost/communication.py  # src20 and src56; 2 minutes

Writes results/communication.json. Each process takes its part of the batch through a DistributedDataParallel network
with compactors (bfloat16 autocast, channels-last format). Steps with the exchange and without it (`no_sync`) are timed
in turn; the share of the exchange is how much longer its steps take, that of the pruner how much of a step its hooks
take, with a mask update spread over the steps between two. Nothing else may run meanwhile.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from the checkout without PYTHONPATH

from base_model import build_model
from benchmarks.cost.timing import MASK_INTERVAL
from rr import ResRepPruner, paper_config
from rr.whole_files import write_text_whole
from training import World, barrier, ends_in_one_line, init_world, surroundings


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure on all processes; the first one writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--models", nargs="+", default=["src20", "src56"])
    parser.add_argument("--batch", type=int, default=128, help="images per step, all processes together")
    parser.add_argument("--rounds", type=int, default=20, help="pairs of timed steps")
    parser.add_argument("--output", type=Path, default=Path("results/communication.json"))
    options = parser.parse_args(arguments)
    with ends_in_one_line(), init_world("cpu") as world:
        entries = {name: measure(name, options.batch // world.size, options.rounds, world) for name in options.models}
        if world.is_first:
            result = {"batch": options.batch, "backend": "gloo", "models": entries, **surroundings(world)}
            options.output.parent.mkdir(parents=True, exist_ok=True)
            write_text_whole(options.output, json.dumps(result, indent=1) + "\n")
            print(json.dumps(entries, indent=1))


def measure(name: str, batch: int, rounds: int, world: World) -> dict[str, Any]:
    """Milliseconds of a step with and without the exchange, of the hooks and of a mask update, and the shares.

    Args:
        name: of the network.
        batch: images per step, on this process.
        rounds: pairs of timed steps.
        world: the processes.
    """
    torch.manual_seed(0)
    model = build_model(name).to(memory_format=torch.channels_last).train()
    pruner = ResRepPruner(model, torch.zeros(1, 3, 32, 32), paper_config(mask_interval=10**9))
    optimizer = torch.optim.SGD(pruner.param_groups(lr=1e-5, momentum=0.9, weight_decay=1e-4), lr=1e-5)
    network = DistributedDataParallel(model) if world.size > 1 else model
    images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,))
    hooks: list[float] = []

    def adjust() -> None:
        began = time.perf_counter()
        pruner.adjust_gradients()
        pruner.after_step()
        hooks.append(time.perf_counter() - began)

    def step(exchanges: bool) -> float:
        barrier(world)
        began = time.perf_counter()
        with nullcontext() if exchanges or world.size == 1 else network.no_sync():
            with torch.autocast("cpu", torch.bfloat16):
                scores = network(images)
            F.cross_entropy(scores.float(), labels).backward()
        adjust()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - began

    for exchanges in (True, False, True):
        step(exchanges)
    hooks.clear()
    pairs = [(step(True), step(False)) for _ in range(rounds)]
    whole = statistics.median(whole for whole, _ in pairs)
    began = time.perf_counter()
    pruner.update_masks()
    update = time.perf_counter() - began
    in_pruner = statistics.median(hooks) + update / MASK_INTERVAL
    return {
        "processes": world.size,
        "step_ms": 1000 * whole,
        "exchange_ms": 1000 * statistics.median(both - alone for both, alone in pairs),
        "hooks_ms": 1000 * statistics.median(hooks),
        "mask_update_ms": 1000 * update,
        "gradient_numbers": sum(parameter.numel() for parameter in model.parameters()),
        "share_of_exchange": statistics.median((both - alone) / both for both, alone in pairs),
        "share_of_pruner": in_pruner / whole,
    }


if __name__ == "__main__":
    main()
