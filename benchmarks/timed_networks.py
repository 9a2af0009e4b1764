"""The networks whose time is measured, and tools/latency.py as a process of its own that measures them."""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from base_model import build_any
from rr.weights import load_network, save_converted, save_hdf5

ROOT = Path(__file__).resolve().parents[1]
SIZES = {
    "src56": 32,
    "torchvision/resnet18": 224,
    "torchvision/resnet50": 224,
    "torchvision/mobilenet_v2": 224,
    "timm/efficientnet_lite0": 224,
}
WEIGHTS = {"src56": ROOT / "results" / "bases" / "src56" / "s0" / "finish.hdf5"}
CLASSES, CHANNELS, IMAGES = 10, 3, 32


def network(name: str) -> nn.Module:
    """A network in eval mode: trained, or with random weights that leave no BN as it begins."""
    torch.manual_seed(0)
    model = build_any(name, num_classes=CLASSES)
    if name in WEIGHTS:
        full = model
        return load_network(WEIGHTS[name], lambda: full)[0].eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):  # biases of zero would be left out of an export
                module.bias.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def images_for(name: str) -> Sequence[Tensor]:
    """Some random images in batches of 8, [8, 3, H, W], for a refit whose accuracy nobody asks for."""
    images = torch.randn(IMAGES, CHANNELS, SIZES[name], SIZES[name], generator=torch.Generator().manual_seed(0))
    return images.split(8)


def rows_by_the_tool(
    name: str,
    networks: Mapping[str, nn.Module],
    runtimes: Sequence[str],
    batches: Sequence[int],
    seconds: float,
) -> list[dict[str, str]]:
    """Write networks to files, and time them by tools/latency.py, which builds, folds and exports them itself.

    Args:
        name: the full network's, of `SIZES`.
        networks: by the names of their files: first the full one, then what was made of it, each timed against it.
        runtimes, batches: in each of these with each of those, on one thread in float32.
        seconds: for each.

    Returns:
        The rows of its CSV: for each narrow network and setting the full one's and its own.

    Raises:
        RuntimeError: if it fails.
    """
    attributes = {"arch": name, "num_classes": CLASSES, "in_channels": CHANNELS, "image_size": SIZES[name]}
    (base, full), *narrow = networks.items()
    options = ["--threads", 1, "--precisions", "float32", "--no-layers", "--output", "latency.csv"]
    options += ["--runtimes", *runtimes, "--batch-sizes", *batches, "--seconds", seconds]
    rows: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        save_hdf5(Path(folder) / base, full.state_dict(), attributes)
        for file, model in narrow:
            save_converted(Path(folder) / file, model, attributes)
            command = [sys.executable, str(ROOT / "tools" / "latency.py"), base, file, *map(str, options)]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"tools/latency.py fails on {name}:\n{done.stderr}")
            rows += csv.DictReader((Path(folder) / "latency.csv").read_text().splitlines())
    return rows
