"""ResNets for 32x32 images: 6n+2 layers of basic blocks, widths 16, 32, 64 (He et al. 2016, section 4.2).

The shortcuts that change the width are 1x1 projections with batch norm, not the paper's zero padding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from base_model.conv_bn import ConvBN
from base_model.residual import ResidualStage, check_stream

STAGE_WIDTHS = (16, 32, 64)


def cifar_resnet_widths(blocks_per_stage: int) -> dict[str, int]:
    """Name and full width of every convolution, in building order (6n+3 of them)."""
    widths = {}
    for stage, width in enumerate(STAGE_WIDTHS, start=1):
        widths["stage1.conv1" if stage == 1 else f"stage{stage}.projection"] = width
        for block in range(blocks_per_stage):
            widths[f"stage{stage}.block{block}.conv1"] = width
            widths[f"stage{stage}.block{block}.conv2"] = width
    return widths


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, the first with the stride; the stage adds the shortcut."""

    def __init__(self, in_channels: int, mid: int, out: int, stride: int, folded: bool) -> None:
        super().__init__()
        self.conv1 = ConvBN(in_channels, mid, 3, stride=stride, folded=folded)
        self.conv2 = ConvBN(mid, out, 3, folded=folded)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(x), inplace=True))


class CifarResNet(nn.Module):
    """The network: [N, in_channels, 32, 32] -> logits [N, num_classes]; other image sizes work as well.

    Args:
        blocks_per_stage: n of 6n+2.
        widths: width by name, the names of `cifar_resnet_widths`.
        num_classes: size of the output.
        in_channels: channels of the images.
        folded: True for convolutions with a bias and no batch norm.

    Raises:
        InputError: if layers that add into one residual stream differ in width.
    """

    def __init__(
        self, blocks_per_stage: int, widths: Mapping[str, int], num_classes: int, in_channels: int, folded: bool
    ) -> None:
        super().__init__()
        channels = in_channels
        for number in range(1, len(STAGE_WIDTHS) + 1):
            stage = f"stage{number}"
            first = "conv1" if number == 1 else "projection"
            names = [f"{stage}.block{index}" for index in range(blocks_per_stage)]
            check_stream(widths, f"{stage}.{first}", [f"{name}.conv2" for name in names])
            stream = widths[f"{stage}.{first}"]
            if number == 1:
                start = {first: ConvBN(channels, stream, 3, folded=folded)}
                channels = stream
            else:
                start = {first: ConvBN(channels, stream, 1, stride=2, folded=folded)}
            blocks = []
            for index, name in enumerate(names):
                stride = 2 if number > 1 and index == 0 else 1
                blocks.append(BasicBlock(channels, widths[f"{name}.conv1"], stream, stride, folded))
                channels = stream
            self.add_module(stage, ResidualStage(blocks, **start))
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
