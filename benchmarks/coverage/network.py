"""What an entry in the lists of networks is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.coverage.losses import Loss

Shapes = tuple[tuple[int, ...], ...]  # of each argument of a forward, without the batch


@dataclass(frozen=True)
class Network:
    """A network to be examined.

    Attributes:
        build: makes it, with random weights; what needs a package is imported there, so that lists need none.
        sizes: pairs of shapes of what it is called with. The first pair that it takes is what it is examined at.
        loss: on what it returns in training mode.
    """

    build: Callable[[], nn.Module]
    sizes: tuple[tuple[Shapes, Shapes], ...]
    loss: Loss


def inputs_of(shapes: Shapes, batch: int) -> tuple[Tensor, ...]:
    """Random arguments of these shapes."""
    return tuple(torch.randn(batch, *shape) for shape in shapes)


def images(*sizes: tuple[int, int], channels: int = 3) -> tuple[tuple[Shapes, Shapes], ...]:
    """Pairs of shapes of square images, for pairs of their sides."""
    return tuple((((channels, a, a),), ((channels, b, b),)) for a, b in sizes)


def one(first: Sequence[int], second: Sequence[int]) -> tuple[tuple[Shapes, Shapes], ...]:
    """A single pair, of networks with one argument."""
    return (((tuple(first),), (tuple(second),)),)


def listed(path: Path) -> list[str]:
    """The names in a file: one a line, but for lines that begin with #."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
