"""ResNets of bottleneck blocks for 224x224 images (He et al. 2016), with the stride on the 3x3 as in torchvision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from base_model.conv_bn import ConvBN
from base_model.residual import ResidualStage, check_stream

STEM_WIDTH = 64
BOTTLENECK_WIDTHS = (64, 128, 256, 512)
EXPANSION = 4


def imagenet_resnet_widths(blocks_per_stage: Sequence[int]) -> dict[str, int]:
    """Name and full width of every convolution, in building order: the stem, then each stage's projection first."""
    widths = {"conv1": STEM_WIDTH}
    for stage, (width, blocks) in enumerate(zip(BOTTLENECK_WIDTHS, blocks_per_stage, strict=True), start=1):
        widths[f"stage{stage}.projection"] = EXPANSION * width
        for block in range(blocks):
            widths[f"stage{stage}.block{block}.conv1"] = width
            widths[f"stage{stage}.block{block}.conv2"] = width
            widths[f"stage{stage}.block{block}.conv3"] = EXPANSION * width
    return widths


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1; the stage adds the shortcut."""

    def __init__(self, in_channels: int, mid1: int, mid2: int, out: int, stride: int, folded: bool) -> None:
        super().__init__()
        self.conv1 = ConvBN(in_channels, mid1, 1, folded=folded)
        self.conv2 = ConvBN(mid1, mid2, 3, stride=stride, folded=folded)
        self.conv3 = ConvBN(mid2, out, 1, folded=folded)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.relu(self.conv2(F.relu(self.conv1(x), inplace=True)), inplace=True))


class ImageNetResNet(nn.Module):
    """The network: [N, in_channels, 224, 224] -> logits [N, num_classes]; other image sizes work as well.

    Args:
        blocks_per_stage: number of blocks of each of the four stages.
        widths: width by name, the names of `imagenet_resnet_widths`.
        num_classes: size of the output.
        in_channels: channels of the images.
        folded: True for convolutions with a bias and no batch norm.

    Raises:
        InputError: if layers that add into one residual stream differ in width.
    """

    def __init__(
        self,
        blocks_per_stage: Sequence[int],
        widths: Mapping[str, int],
        num_classes: int,
        in_channels: int,
        folded: bool,
    ) -> None:
        super().__init__()
        channels = widths["conv1"]
        self.conv1 = ConvBN(in_channels, channels, 7, stride=2, folded=folded)
        for number, num_blocks in enumerate(blocks_per_stage, start=1):
            stage = f"stage{number}"
            names = [f"{stage}.block{index}" for index in range(num_blocks)]
            check_stream(widths, f"{stage}.projection", [f"{name}.conv3" for name in names])
            stream = widths[f"{stage}.projection"]
            first_stride = 1 if number == 1 else 2
            projection = ConvBN(channels, stream, 1, stride=first_stride, folded=folded)
            blocks = []
            for index, name in enumerate(names):
                mid1, mid2 = widths[f"{name}.conv1"], widths[f"{name}.conv2"]
                stride = first_stride if index == 0 else 1
                blocks.append(Bottleneck(channels, mid1, mid2, stream, stride, folded))
                channels = stream
            self.add_module(stage, ResidualStage(blocks, projection=projection))
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x), inplace=True), kernel_size=3, stride=2, padding=1)
        x = self.stage4(self.stage3(self.stage2(self.stage1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
