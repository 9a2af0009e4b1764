"""What a layer reads, as rows: a layer is then a matrix, and a network's images are rows of numbers that it multiplies.

A convolution reads patches of its input (one row for each place of its output), a linear layer the last dimension. A
transposed convolution spreads each pixel, so its rows are pixels and its matrix has a column for each output and tap.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr.graph import Layer, LayerKind

REFITTED = (LayerKind.CONV, LayerKind.TRANSPOSED, LayerKind.LINEAR)


@dataclass(frozen=True)
class Reader:
    """A layer that reads units that may go, as a matrix [inputs x taps, outputs].

    Attributes:
        layer: the layer.
        taps: rows of the matrix for each input channel: the kernel's positions.
        has_bias: whether a constant can be added to its outputs, in its bias or in the BN that follows.
    """

    layer: Layer
    taps: int
    has_bias: bool

    @property
    def units(self) -> np.ndarray:
        """[rows], the unit of each row of the matrix; without that of the constant."""
        return np.repeat(self.layer.in_units, self.taps)


def reader_of(layer: Layer, module: nn.Module) -> Reader:
    """What a layer is as a matrix."""
    if layer.kind is LayerKind.LINEAR:
        return Reader(layer, 1, module.bias is not None or layer.norm is not None)
    if layer.kind is LayerKind.TRANSPOSED:
        return Reader(layer, 1, False)  # a constant in front of it isn't one behind it
    return Reader(layer, module.weight[0, 0].numel(), module.bias is not None or layer.norm is not None)


def matrix_of(reader: Reader, module: nn.Module) -> Tensor:
    """[rows, columns] in float64: the layer's weight, without its bias."""
    weight = module.weight.detach().double()
    if reader.layer.kind is LayerKind.TRANSPOSED:
        return weight.flatten(1)  # [C, D x taps]
    return weight.flatten(1).T.contiguous()  # [C x taps, D]


@torch.no_grad()
def put_matrix(reader: Reader, module: nn.Module, norm: nn.Module | None, matrix: Tensor, shift: Tensor | None) -> None:
    """Give the layer another matrix, and add to its outputs ([D] or None: nothing), in place."""
    weight = matrix if reader.layer.kind is LayerKind.TRANSPOSED else matrix.T
    module.weight.copy_(weight.reshape(module.weight.shape))
    if shift is None:
        return
    if module.bias is not None:
        module.bias.add_(shift.to(module.bias))
    elif norm is not None:
        norm.running_mean.sub_(shift.to(norm.running_mean))


def places_of(name: str, batch: int, shape: tuple[int, ...], most: int) -> list[Tensor]:
    """Some of the places of an output's pixels, the same each time, for all images of a batch: an index per dimension.

    Args:
        name: the layer's name.
        batch: which batch.
        shape: the output's sizes without batch and channels.
        most: how many places at most.
    """
    if not shape:
        return []
    total = int(np.prod(shape))
    if total <= most:
        chosen = np.arange(total)
    else:
        chosen = np.random.default_rng([zlib.crc32(name.encode()), batch]).choice(total, most, replace=False)
    return [torch.from_numpy(index) for index in np.unravel_index(chosen, shape)]


def at_places(x: Tensor, places: list[Tensor]) -> Tensor:
    """[images x places, C] of an activation [N, C, ...]."""
    picked = x[(slice(None), slice(None), *[index.to(x.device) for index in places])] if places else x[:, :, None]
    return picked.transpose(1, 2).flatten(0, 1)


def patches_at(x: Tensor, kernel: tuple[int, ...], options: dict[str, tuple[int, ...]], places: list[Tensor]) -> Tensor:
    """[images x places, C x taps]: what a convolution reads at some places of its output.

    Args:
        x: [N, C, ...], its input.
        kernel: sizes of the kernel.
        options: its "stride", "padding" and "dilation".
        places: what `places_of` gave.
    """
    padding = [size for padded in reversed(options["padding"]) for size in (padded, padded)]
    windows = F.pad(x, padding)
    for dim, (size, stride, dilation) in enumerate(zip(kernel, options["stride"], options["dilation"], strict=True)):
        windows = windows.unfold(2 + dim, (size - 1) * dilation + 1, stride)[..., ::dilation]
    picked = windows[(slice(None), slice(None), *[index.to(x.device) for index in places])]  # [N, C, places, *kernel]
    return picked.transpose(1, 2).flatten(2).flatten(0, 1)
