"""MobileNet-v1 (Howard et al. 2017): a stem and 13 depthwise-separable blocks, for ImageNet and for CIFAR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from base_model.conv_bn import ConvBN
from rr.errors import InputError

STEM_WIDTH = 32
BLOCK_WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
# Strides of the stem and of the 13 depthwise convolutions: 224 -> 7 pixels, and 32 -> 4.
IMAGENET_STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
CIFAR_STRIDES = (1, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1)


def mobilenet_widths() -> dict[str, int]:
    """Name and full width of every convolution, in building order; a depthwise one has the width of its input."""
    widths = {"conv1": STEM_WIDTH}
    channels = STEM_WIDTH
    for index, width in enumerate(BLOCK_WIDTHS):
        widths[f"block{index}.depthwise"] = channels
        widths[f"block{index}.pointwise"] = width
        channels = width
    return widths


class SeparableBlock(nn.Module):
    """3x3 depthwise convolution with the stride, then a 1x1 one, each with ReLU."""

    def __init__(self, in_channels: int, out: int, stride: int, folded: bool) -> None:
        super().__init__()
        self.depthwise = ConvBN(in_channels, in_channels, 3, stride=stride, groups=in_channels, folded=folded)
        self.pointwise = ConvBN(in_channels, out, 1, folded=folded)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.pointwise(F.relu(self.depthwise(x), inplace=True)), inplace=True)


class MobileNet(nn.Module):
    """The network: [N, in_channels, H, W] -> logits [N, num_classes].

    The classifier is `fc` in the ImageNet network and `linear` in the CIFAR one, as in the ResNets here.

    Args:
        strides: strides of the stem and of the 13 blocks.
        classifier: name of the last layer.
        widths: width by name, the names of `mobilenet_widths`.
        num_classes: size of the output.
        in_channels: channels of the images.
        folded: True for convolutions with a bias and no batch norm.

    Raises:
        InputError: if a depthwise convolution's width isn't that of its input.
    """

    def __init__(
        self,
        strides: Sequence[int],
        classifier: str,
        widths: Mapping[str, int],
        num_classes: int,
        in_channels: int,
        folded: bool,
    ) -> None:
        super().__init__()
        source, channels = "conv1", widths["conv1"]
        self.conv1 = ConvBN(in_channels, channels, 3, stride=strides[0], folded=folded)
        self.block_names = [f"block{index}" for index in range(len(BLOCK_WIDTHS))]
        for name, stride in zip(self.block_names, strides[1:], strict=True):
            depthwise = f"{name}.depthwise"
            if widths[depthwise] != channels:
                raise InputError(
                    f"{depthwise} (width {widths[depthwise]}) keeps the channels of its input {source} "
                    f"(width {channels}): give them the same width"
                )
            source = f"{name}.pointwise"
            self.add_module(name, SeparableBlock(channels, widths[source], stride, folded))
            channels = widths[source]
        self.classifier_name = classifier
        self.add_module(classifier, nn.Linear(channels, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x), inplace=True)
        for name in self.block_names:
            x = getattr(self, name)(x)
        return getattr(self, self.classifier_name)(F.adaptive_avg_pool2d(x, 1).flatten(1))
