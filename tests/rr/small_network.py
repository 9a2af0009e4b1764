"""A network of which a file takes a few KiB."""

from __future__ import annotations

from torch import nn


def small_network() -> nn.Sequential:
    """[N, 3, H, W] -> [N, 3]; its names and shapes are those in `tests/rr/weights/files`."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
