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
    steps = Steps(name, batch, world)
    for exchanges in (True, False, True):
        steps.timed(exchanges)
    steps.hooks.clear()
    pairs = [(steps.timed(True), steps.timed(False)) for _ in range(rounds)]
    whole = statistics.median(whole for whole, _ in pairs)
    update, hooks = steps.mask_update(), statistics.median(steps.hooks)
    return {
        "processes": world.size,
        "step_ms": 1000 * whole,
        "exchange_ms": 1000 * statistics.median(both - alone for both, alone in pairs),
        "hooks_ms": 1000 * hooks,
        "mask_update_ms": 1000 * update,
        "gradient_numbers": sum(parameter.numel() for parameter in steps.model.parameters()),
        "share_of_exchange": statistics.median((both - alone) / both for both, alone in pairs),
        "share_of_pruner": (hooks + update / MASK_INTERVAL) / whole,
    }


class Steps:
    """Pruning steps of one network on random images, in several processes.

    Args:
        name: of the network.
        batch: images per step, on this process.
        world: the processes.

    Attributes:
        model: the network.
        hooks: the seconds that the pruner's hooks took in each step so far.
    """

    def __init__(self, name: str, batch: int, world: World) -> None:
        torch.manual_seed(0)
        self.model = build_model(name).to(memory_format=torch.channels_last).train()
        self.hooks: list[float] = []
        self._world = world
        self._pruner = ResRepPruner(self.model, torch.zeros(1, 3, 32, 32), paper_config(mask_interval=10**9))
        groups = self._pruner.param_groups(lr=1e-5, momentum=0.9, weight_decay=1e-4)
        self._optimizer = torch.optim.SGD(groups, lr=1e-5)
        self._network = DistributedDataParallel(self.model) if world.size > 1 else self.model
        self._images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        self._labels = torch.randint(10, (batch,))

    def timed(self, exchanges: bool) -> float:
        """Seconds of a step, with the exchange of gradients or without it."""
        barrier(self._world)
        began = time.perf_counter()
        with nullcontext() if exchanges or self._world.size == 1 else self._network.no_sync():
            with torch.autocast("cpu", torch.bfloat16):
                scores = self._network(self._images)
            F.cross_entropy(scores.float(), self._labels).backward()
        self._adjust()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - began

    def mask_update(self) -> float:
        """Seconds of a mask update."""
        began = time.perf_counter()
        self._pruner.update_masks()
        return time.perf_counter() - began

    def _adjust(self) -> None:
        began = time.perf_counter()
        self._pruner.adjust_gradients()
        self._pruner.after_step()
        self.hooks.append(time.perf_counter() - began)


if __name__ == "__main__":
    main()
