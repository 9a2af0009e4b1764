"""What a page's Python blocks take as given: the names that its text says are yours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn

import rr
from base_model import build_model
from examples.digits import Net
from experiments.row_norms import encoded


def pruned() -> nn.Module:
    """A network that has lost half of its MACs, with whatever weights."""
    batches = [torch.rand(8, 1, 8, 8) for _ in range(4)]
    return rr.prune(Net(), batches[0], batches, flops_target=0.5)


def trained() -> dict[str, object]:
    """A network, a batch of images, and a short loop's length."""
    torch.manual_seed(0)
    batch = torch.rand(8, 1, 8, 8), torch.randint(10, (8,))
    return {"build": Net, "model": Net(), "example_inputs": batch[0][:2], "loader": [batch] * 4, "epochs": 2}


def of_files() -> dict[str, object]:
    metrics = Path("resrep_models/src56_train/metrics.jsonl")
    metrics.parent.mkdir(parents=True)
    metrics.write_text(json.dumps({"epoch": 1, "row_norms": {"9": {"conv": encoded(np.array([0.0, 1.0]))}}}) + "\n")
    return {"slim": pruned(), "full_network": Net(), "example_inputs": torch.rand(2, 1, 8, 8)}


def of_first_steps() -> dict[str, object]:
    """What the page's commands write is there, of a smaller network."""
    folder = Path("resrep_models/src20_train")
    folder.mkdir(parents=True)
    model = build_model("src8", num_classes=10, in_channels=1)
    images = torch.rand(8, 1, 32, 32)
    slim = rr.prune(model, images[:2], [images, images], flops_target=0.5)
    card = rr.NetworkCard(
        architecture="src8",
        keywords={"num_classes": 10, "in_channels": 1},
        classes=tuple("0123456789"),
        mean=(0.5,),
        std=(0.5,),
        in_channels=1,
        image_size=32,
    )
    rr.save_pruned(slim, folder / "finish_converted.safetensors", card)
    return {}


def of_export() -> dict[str, object]:
    """The network that the page's card names, pruned."""
    full = torchvision.models.resnet18(num_classes=3)
    images = torch.rand(4, 3, 32, 32)
    return {
        "full_network": full,
        "slim": rr.prune(full, images[:2], [images], flops_target=0.95, include=("layer1.*",)),
    }


PREPARED: dict[str, Callable[[], dict[str, object]]] = {
    "docs/export.md": of_export,
    "docs/files.md": of_files,
    "docs/first_steps.md": of_first_steps,
    "docs/targets.md": trained,
    "docs/training_loop.md": trained,
}
