"""VGG-16 for CIFAR: 13 convolutions with batch norm (Simonyan and Zisserman 2015) and two linear layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from base_model.conv_bn import ConvBN
from rr.errors import InputError

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
HIDDEN_WIDTH = 512
DOWNSAMPLING = 2 ** len(STAGES)  # one 2x2 pool per stage


def vgg_widths() -> dict[str, int]:
    """Name and full width of every convolution and of the hidden linear layer, in building order."""
    widths = {
        f"stage{stage}.conv{index}": width
        for stage, stage_widths in enumerate(STAGES, start=1)
        for index, width in enumerate(stage_widths, start=1)
    }
    return widths | {"linear1": HIDDEN_WIDTH}


class Stage(nn.Module):
    """3x3 convolutions `conv1`, `conv2`, ... with ReLU, then a 2x2 max pool."""

    def __init__(self, in_channels: int, widths: list[int], folded: bool) -> None:
        super().__init__()
        for index, width in enumerate(widths, start=1):
            self.add_module(f"conv{index}", ConvBN(in_channels, width, 3, folded=folded))
            in_channels = width

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.children():
            x = F.relu(conv(x), inplace=True)
        return F.max_pool2d(x, 2)


class VGG(nn.Module):
    """The network: [N, in_channels, image_size, image_size] -> logits [N, num_classes].

    Args:
        widths: width by name, the names of `vgg_widths`.
        num_classes: size of the output.
        in_channels: channels of the images.
        image_size: side of the images; the first linear layer sees `(image_size // 32) ** 2` pixels per channel.
        folded: True for convolutions with a bias and no batch norm.

    Raises:
        InputError: if the images are too small for five 2x2 pools.
    """

    def __init__(
        self, widths: Mapping[str, int], num_classes: int, in_channels: int, image_size: int, folded: bool
    ) -> None:
        super().__init__()
        if image_size < DOWNSAMPLING:
            raise InputError(f"image_size is {image_size}, too small for five 2x2 pools: give at least {DOWNSAMPLING}")
        channels = in_channels
        for number, stage in enumerate(STAGES, start=1):
            stage_widths = [widths[f"stage{number}.conv{index}"] for index in range(1, len(stage) + 1)]
            self.add_module(f"stage{number}", Stage(channels, stage_widths, folded))
            channels = stage_widths[-1]
        pixels = (image_size // DOWNSAMPLING) ** 2
        self.linear1 = nn.Linear(channels * pixels, widths["linear1"])
        self.linear2 = nn.Linear(widths["linear1"], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage5(self.stage4(self.stage3(self.stage2(self.stage1(x)))))
        return self.linear2(F.relu(self.linear1(x.flatten(1)), inplace=True))
