"""LeNet-5 with batch norm, for MNIST: two 5x5 convolutions and two linear layers (LeCun et al. 1998)."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from base_model.conv_bn import ConvBN
from rr.errors import InputError

KERNEL = 5
MIN_IMAGE_SIZE = 16  # 16 -> 12 -> 6 -> 2 -> 1


def lenet_widths() -> dict[str, int]:
    """Name and full width of both convolutions and of the hidden linear layer, in building order."""
    return {"conv1": 20, "conv2": 50, "linear1": 500}


class LeNet5BN(nn.Module):
    """The network: [N, in_channels, image_size, image_size] -> logits [N, num_classes].

    Args:
        widths: width by name, the names of `lenet_widths`.
        num_classes: size of the output.
        in_channels: channels of the images.
        image_size: side of the images, on which the size of the first linear layer depends.
        folded: True for convolutions with a bias and no batch norm.

    Raises:
        InputError: if the images are too small.
    """

    def __init__(
        self, widths: Mapping[str, int], num_classes: int, in_channels: int, image_size: int, folded: bool
    ) -> None:
        super().__init__()
        if image_size < MIN_IMAGE_SIZE:
            raise InputError(
                f"image_size is {image_size}, too small for two 5x5 convolutions and 2x2 pools: "
                f"give at least {MIN_IMAGE_SIZE}"
            )
        side = image_size
        for _ in range(2):
            side = (side - KERNEL + 1) // 2
        self.conv1 = ConvBN(in_channels, widths["conv1"], KERNEL, padding=0, folded=folded)
        self.conv2 = ConvBN(widths["conv1"], widths["conv2"], KERNEL, padding=0, folded=folded)
        self.linear1 = nn.Linear(widths["conv2"] * side**2, widths["linear1"])
        self.linear2 = nn.Linear(widths["linear1"], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x), inplace=True), 2)
        x = F.max_pool2d(F.relu(self.conv2(x), inplace=True), 2)
        return self.linear2(F.relu(self.linear1(x.flatten(1)), inplace=True))
