"""The unit from which every network here is built: a convolution with the batch norm behind it."""

from __future__ import annotations

from torch import Tensor, nn


class ConvBN(nn.Module):
    """Convolution and batch norm, [N, in, H, W] -> [N, out, H', W'], without an activation.

    The children are `conv` (no bias) and `bn`; a folded one has only `conv`, with a bias. The ReLU stays outside,
    because the layer's output as a module is what a pruning method hooks: the place directly behind the batch norm.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, the layer's width.
        kernel_size: side of the square kernel.
        stride: step of the kernel.
        padding: zeros on each side; None for the half of the kernel that keeps the size at stride 1.
        groups: groups of the convolution (`in_channels` for a depthwise one).
        folded: True for a convolution with a bias and no batch norm, as conversion leaves it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        folded: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2 if padding is None else padding,
            groups=groups,
            bias=folded,
        )
        self.bn = None if folded else nn.BatchNorm2d(out_channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.bn is None else self.bn(x)
