"""What ResRep itself costs: the step with compactors, a mask update, folding, and the data's augmentation.

    python benchmarks/cost/method_cost.py           # writes results/method_cost.json; about 3 minutes on 2 cores

Bars: a src56 step at batch 64 in float32 with compactors at most 1.15x the step without (the first implementation:
1.18x); a mask update on sres50 at half its MACs under 10 ms (129 ms); folding sres50 under 0.5 s without the proof
(1.4 s); augmenting 64 CIFAR images under 2.8 ms. Nothing else may run meanwhile. Steps are timed in pairs, in turn.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from the checkout without PYTHONPATH

from base_model import build_model
from benchmarks.cost.timing import MASK_INTERVAL, seconds, zero_gradients
from data import SyntheticSize, load_data
from experiments.recipes import resrep_config
from rr import ResRepPruner, paper_config, param_groups
from rr.conversion import fold
from rr.graph import ChannelGraph, LiveModel
from training import init_world, surroundings

BATCH = 64


def main() -> None:
    """Measure everything, print it and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("results/method_cost.json"))
    parser.add_argument("--rounds", type=int, default=30, help="pairs of steps")
    options = parser.parse_args()
    torch.manual_seed(0)
    result = {
        "step": step_cost("src56", options.rounds),
        "mask_update": mask_update_cost(),
        "fold": fold_cost(),
        "augment": augment_cost(),
        **surroundings(init_world("cpu")),
    }
    print(json.dumps(result, indent=2))
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")


def step_cost(arch: str, rounds: int) -> dict[str, object]:
    """A training step of the network with compactors and the pruner's hooks, relative to one without, in float32."""
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
    images = images.contiguous(memory_format=torch.channels_last)
    plain = build_model(arch).to(memory_format=torch.channels_last)
    compacted = build_model(arch).to(memory_format=torch.channels_last)
    pruner = ResRepPruner(compacted, images[:1], paper_config(mask_interval=MASK_INTERVAL))
    settings = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}
    optimizers = [
        torch.optim.SGD(param_groups(plain, **settings), lr=0.01),
        torch.optim.SGD(pruner.param_groups(**settings), lr=0.01),
    ]
    pruner.attach(optimizers[1])

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    pairs = list(zip((plain, compacted), optimizers, strict=True))
    for _ in range(3):
        for pair in pairs:
            step(*pair)
    times = [[seconds(lambda pair=pair: step(*pair)) for pair in pairs] for _ in range(rounds)]
    hooks = []
    for _ in range(rounds):
        zero_gradients(pruner)
        hooks.append(seconds(pruner.adjust_gradients))
    ratios = [with_compactors / without for without, with_compactors in times]
    return {
        "arch": arch,
        "batch": BATCH,
        "precision": "float32",
        "rounds": rounds,
        "ms_without": 1000 * statistics.median(time[0] for time in times),
        "ms_with": 1000 * statistics.median(time[1] for time in times),
        "ms_of_reset_and_penalty": 1000 * statistics.median(hooks),
        "ratio": statistics.median(ratios),
        "ratio_quartiles": np.quantile(ratios, [0.25, 0.75]).tolist(),
        "bar": 1.15,
    }


def mask_update_cost() -> dict[str, object]:
    """One mask update on sres50 whose masks are already at the target of half its MACs."""
    model = build_model("sres50")
    config = paper_config(
        flops_target=0.5, exclude=resrep_config("sres50").selection.exclude, rows_per_update=10_000
    )  # one update goes all the way
    pruner = ResRepPruner(model, torch.zeros(1, 3, 224, 224), config)
    for compactor in pruner.compactors.values():
        with torch.no_grad():
            compactor.pwc.weight.mul_(torch.rand(len(compactor.mask), 1, 1, 1))
    pruner.update_masks()
    times = [seconds(pruner.update_masks) for _ in range(30)]
    return {
        "arch": "sres50",
        "candidates": int(pruner.selected.sum()),
        "macs_ratio": pruner.unmasked.macs_ratio,
        "ms": 1000 * statistics.median(times),
        "bar_ms": 10,
    }


def fold_cost() -> dict[str, object]:
    """Folding sres50, half of its candidates dead, in float64 as a conversion does it, without the proof."""
    model = build_model("sres50")
    pruner = ResRepPruner(model, torch.zeros(1, 3, 224, 224), resrep_config("sres50"))
    alive = np.ones(pruner.graph.num_units, dtype=bool)
    candidates = np.flatnonzero(pruner.selected)
    alive[np.random.default_rng(0).permutation(candidates)[: len(candidates) // 2]] = False
    times = [seconds(lambda: fold(LiveModel(model, pruner.graph), alive).float()) for _ in range(7)]
    traces = [seconds(lambda: ChannelGraph(build_model("sres50"), torch.zeros(1, 3, 224, 224))) for _ in range(3)]
    return {
        "arch": "sres50",
        "seconds": statistics.median(times),
        "bar_seconds": 0.5,
        "trace_and_plan_seconds": statistics.median(traces),
    }


def augment_cost() -> dict[str, object]:
    """A batch of 64 CIFAR-sized images, drawn, cropped, flipped and normalised, as the training loop gets it."""
    data = load_data("synthetic", synthetic_size=SyntheticSize(train=64 * 100))
    batches = data.train_batches(0, batch_size=BATCH, seed=0, device=torch.device("cpu"))
    times = [seconds(lambda: next(batches)) for _ in range(100)]
    return {"images": BATCH, "ms": 1000 * statistics.median(times), "bar_ms": 2.8}


if __name__ == "__main__":
    main()
