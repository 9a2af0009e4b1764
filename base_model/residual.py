"""What the CIFAR and the ImageNet ResNets share: stages of blocks that add into one stream of channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from base_model.conv_bn import ConvBN
from rr.errors import InputError


class ResidualStage(nn.Module):
    """Blocks `block0`, `block1`, ... that add into one residual stream, [N, C, H, W] -> [N, D, H', W'].

    The stream starts in one of two ways: with a plain convolution `conv1` (the stem of the CIFAR networks), or with
    a 1x1 `projection` of the input, to which the first block adds.

    Args:
        blocks: the blocks without their shortcut and their last ReLU; all give the width of the stream.
        conv1: the convolution before the first block, or None.
        projection: the first block's shortcut, or None for an identity.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], conv1: ConvBN | None = None, projection: ConvBN | None = None
    ) -> None:
        super().__init__()
        # Registered before the blocks: the order of the modules is the order of the widths.
        self.conv1 = conv1
        self.projection = projection
        self.block_names = [f"block{index}" for index in range(len(blocks))]
        for name, block in zip(self.block_names, blocks, strict=True):
            self.add_module(name, block)

    def forward(self, x: Tensor) -> Tensor:
        if self.conv1 is not None:
            x = F.relu(self.conv1(x), inplace=True)
        shortcut = x if self.projection is None else self.projection(x)
        for name in self.block_names:
            x = shortcut = F.relu(getattr(self, name)(x) + shortcut, inplace=True)
        return x


def check_stream(widths: Mapping[str, int], first: str, others: Sequence[str]) -> None:
    """Check that layers can add into one residual stream.

    Args:
        widths: width by layer name.
        first: the layer that starts the stream.
        others: the layers that add into it.

    Raises:
        InputError: if one of them has another width than the first.
    """
    for other in others:
        if widths[other] != widths[first]:
            raise InputError(
                f"{first} (width {widths[first]}) and {other} (width {widths[other]}) add into the same residual "
                "stream: give them the same width"
            )
