"""Plain layers of torch, for layers that computed their weights from parameters (weight norm, say), and their mark.

The module that computed its weight may have parameters of the same names and shapes (a standardised convolution), so a
file's shapes don't tell that it has been replaced. A small buffer of the plain layer says so, with all that the layer's
options are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rr.errors import InputError

MARK = "plain_layer"
_CLASSES = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_SAME = -1  # padding="same", whose pixels may differ on the two sides
_PER_DIMENSION = ("stride", "padding", "dilation", "output_padding")


@dataclass(frozen=True)
class PlainLayer:
    """What a plain layer is, but for its channels and numbers.

    Attributes:
        kind: its class.
        groups: of a convolution.
        stride, padding, dilation, output_padding: of a convolution, a number for each of its dimensions; a padding of
            -1 keeps the size ("same").
    """

    kind: type[nn.Module]
    groups: int = 1
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()

    def build(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        """The layer with this weight and bias, marked.

        Args:
            weight: as torch's own layer has it.
            bias: [out] or None.
        """
        transposed = self.is_transposed
        inputs, outputs = (weight.shape[0 if transposed else 1], weight.shape[1 if transposed else 0])
        if self.kind is nn.Linear:
            layer = nn.Linear(inputs, outputs, bias is not None, device="meta")  # its random start takes no numbers
        else:
            given = {name: getattr(self, name) for name in _PER_DIMENSION}
            if not transposed:
                del given["output_padding"]
            if _SAME in self.padding:
                given["padding"] = "same"
            inputs, outputs = (inputs, outputs * self.groups) if transposed else (inputs * self.groups, outputs)
            options = {**given, "groups": self.groups, "bias": bias is not None, "device": "meta"}
            layer = self.kind(inputs, outputs, tuple(weight.shape[2:]), **options)
        layer.weight = nn.Parameter(weight, requires_grad=weight.requires_grad)
        if bias is not None:
            layer.bias = nn.Parameter(bias, requires_grad=bias.requires_grad)
        layer.register_buffer(MARK, self._mark().to(weight.device))
        return layer

    @property
    def is_transposed(self) -> bool:
        """Whether it is a transposed convolution."""
        return issubclass(self.kind, nn.modules.conv._ConvTransposeNd)

    def _mark(self) -> Tensor:
        options = [value for name in _PER_DIMENSION for value in getattr(self, name)]
        return torch.tensor([_CLASSES.index(self.kind), self.groups, *options])

    @classmethod
    def of_mark(cls, mark: Sequence[int] | np.ndarray | Tensor) -> PlainLayer:
        """What the mark in a file says.

        Raises:
            InputError: if no mark of ours has these numbers.
        """
        numbers = [int(value) for value in mark]
        kind = numbers[0] if numbers and 0 <= numbers[0] < len(_CLASSES) else None
        dimensions = 0 if not kind else (kind - 1) % 3 + 1
        if kind is None or len(numbers) != 2 + dimensions * len(_PER_DIMENSION):
            raise InputError(f"{numbers} describes no layer: the file is damaged, write or copy it again")
        parts = [tuple(numbers[2 + dimensions * i :][:dimensions]) for i in range(len(_PER_DIMENSION))]
        return cls(_CLASSES[kind], numbers[1], **dict(zip(_PER_DIMENSION, parts, strict=True)))


def update_mark(layer: nn.Module) -> None:
    """Let the mark of a plain layer, if it is one, say how many groups it has now."""
    if MARK in layer._buffers and not isinstance(layer, nn.Linear):
        layer._buffers[MARK][1] = layer.groups
