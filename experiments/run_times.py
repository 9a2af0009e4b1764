"""Where the milliseconds of a run's network went, before and after, for its report."""

from __future__ import annotations

from typing import Any

import torch

from experiments.latency.layers import timed_layers
from experiments.run import Run
from experiments.testing import folded
from rr.weights import load_network
from training.json_files import read_lines
from training.run_folder import CONVERTED_WEIGHTS, METRICS

WORTH_SECONDS = 60.0  # of training; a shorter run isn't held up by timing
SECONDS = 2.0  # for all rounds
MOST_IMAGES = 64


def is_worth_it(run: Run) -> bool:
    """Whether the run was long enough, and trained on the CPU, whose clock this is."""
    seconds = sum(epoch.get("time", {}).get("seconds", 0) for epoch in read_lines(run.folder / METRICS))
    return run.world.device.type == "cpu" and seconds >= WORTH_SECONDS


def layer_milliseconds(run: Run) -> dict[str, Any]:
    """Time the network that the run began with and the pruned one in turn, BN folded in both, in eager float32.

    Returns:
        images, threads: of the batch, and of this process.
        layers: name -> milliseconds before and after; after is None where the layer is gone.
    """
    base = run.first_network()
    pruned, _ = load_network(run.folder / CONVERTED_WEIGHTS, run.build)
    shape = (run.data.in_channels, run.data.image_size, run.data.image_size)
    images = torch.randn(min(run.recipe.batch_size, MOST_IMAGES), *shape)
    before, after = timed_layers((folded(base.eval(), shape), pruned.eval()), images, SECONDS)
    return {
        "images": len(images),
        "threads": torch.get_num_threads(),
        "layers": {
            name: [1000 * timed.seconds, 1000 * after[name].seconds if name in after else None]
            for name, timed in before.items()
        },
    }
