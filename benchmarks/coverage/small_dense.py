"""Small networks with an output for each pixel (or voxel): U-Nets, super-resolution, denoising, poses."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOLS = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def conv(inputs: int, outputs: int, dims: int = 2) -> nn.Sequential:
    """conv-BN-ReLU in so many dimensions."""
    return nn.Sequential(
        CONVS[dims](inputs, outputs, 3, padding=1, bias=False), NORMS[dims](outputs), nn.ReLU(inplace=True)
    )


class UNet(nn.Module):
    """The plain U-Net: images [N, C, ...] -> logits [N, classes, ...], sides in multiples of 2 ** (levels - 1).

    Args:
        dims: 2 or 3.
        in_channels, classes: of the images and of the logits.
        widths: channels at each level.
        upsample: enlarge by interpolation, not by transposed convolutions.
    """

    def __init__(
        self,
        dims: int = 2,
        in_channels: int = 3,
        classes: int = 5,
        widths: tuple[int, ...] = (16, 32, 64),
        upsample: bool = False,
    ) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList([self._two(a, b, dims) for a, b in ((in_channels, widths[0]), *pairs)])
        self.pool = POOLS[dims](2)
        up = []
        for a, b in pairs:
            if upsample:
                enlarge = nn.Upsample(scale_factor=2, mode="bilinear" if dims == 2 else "trilinear")
                up.append(nn.Sequential(enlarge, conv(b, a, dims)))
            else:
                up.append(TRANSPOSED[dims](b, a, 2, 2))
        self.up = nn.ModuleList(up[::-1])
        self.join = nn.ModuleList([self._two(2 * a, a, dims) for a, _ in pairs[::-1]])
        self.head = CONVS[dims](widths[0], classes, 1)

    @staticmethod
    def _two(inputs: int, outputs: int, dims: int) -> nn.Sequential:
        return nn.Sequential(conv(inputs, outputs, dims), conv(outputs, outputs, dims))

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for place, block in enumerate(self.down):
            x = block(self.pool(x) if place else x)
            kept.append(x)
        for up, join, beside in zip(self.up, self.join, kept[-2::-1], strict=True):
            x = join(torch.cat([beside, up(x)], dim=1))
        return self.head(x)


class EDSR(nn.Module):
    """Residual blocks without norms, scaled, and a pixel shuffle: [N, 3, H, W] -> [N, 3, 2 H, 2 W]."""

    def __init__(self, width: int = 32, blocks: int = 4, scale: float = 0.1) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(True), nn.Conv2d(width, width, 3, 1, 1))
                for _ in range(blocks)
            ]
        )
        self.body_end = nn.Conv2d(width, width, 3, padding=1)
        self.tail = nn.Sequential(
            nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(width, 3, 3, padding=1)
        )
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        body = x
        for block in self.blocks:
            body = body + self.scale * block(body)
        return self.tail(x + self.body_end(body))


class ESPCN(nn.Module):
    """Three convolutions and a pixel shuffle: [N, 1, H, W] -> [N, 1, 3 H, 3 W]."""

    def __init__(self, factor: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 64, 5, padding=2),
            nn.Tanh(),
            nn.Conv2d(64, 32, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(32, factor**2, 3, padding=1),
            nn.PixelShuffle(factor),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ChannelAttention(nn.Module):
    """A residual block whose channels a gate weights, as in RCAN."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(width, width, 3, padding=1)
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y * self.gate(y)


class RCAN(nn.Module):
    """Groups of blocks with channel attention, residual in residual: [N, 3, H, W] -> [N, 3, 2 H, 2 W]."""

    def __init__(self, width: int = 24, groups: int = 2, blocks: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.groups = nn.ModuleList(
            [
                nn.Sequential(
                    *[ChannelAttention(width, width // 4) for _ in range(blocks)], nn.Conv2d(width, width, 3, padding=1)
                )
                for _ in range(groups)
            ]
        )
        self.tail = nn.Sequential(
            nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(width, 3, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        body = x
        for group in self.groups:
            body = body + group(body)
        return self.tail(x + body)


class FSRCNN(nn.Module):
    """PReLUs, and a transposed convolution at the end: [N, 1, H, W] -> [N, 1, 2 H, 2 W]."""

    def __init__(self, width: int = 56, inner: int = 12) -> None:
        super().__init__()
        mapping = [layer for _ in range(4) for layer in (nn.Conv2d(inner, inner, 3, padding=1), nn.PReLU(inner))]
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, width, 5, padding=2), nn.PReLU(width), nn.Conv2d(width, inner, 1), nn.PReLU(inner)),
            *mapping,
            *(nn.Conv2d(inner, width, 1), nn.PReLU(width)),
            nn.ConvTranspose2d(width, 1, 9, 2, 4, output_padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class DnCNN(nn.Module):
    """Convolutions that estimate an image's noise, which is taken off it: [N, 1, H, W] -> [N, 1, H, W]."""

    def __init__(self, width: int = 32, depth: int = 6) -> None:
        super().__init__()
        self.noise = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(inplace=True),
            *[conv(width, width) for _ in range(depth)],
            nn.Conv2d(width, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x - self.noise(x)


class Hourglass(nn.Module):
    """Two stacked hourglasses, [N, 3, H, W] -> two heatmaps [N, joints, H / 2, W / 2]; sides in multiples of 8."""

    def __init__(self, joints: int = 16, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.around = nn.ModuleList([conv(width, width) for _ in range(4)])
        self.inner = nn.ModuleList([conv(width, width) for _ in range(4)])
        self.out = nn.ModuleList([conv(width, width) for _ in range(4)])
        self.pool, self.up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.heads = nn.ModuleList([nn.Conv2d(width, joints, 1) for _ in range(2)])
        self.back = nn.Conv2d(joints, width, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        first = self._hourglass(x, 0)
        heatmap = self.heads[0](first)
        x = x + first + self.back(heatmap)
        return [heatmap, self.heads[1](self._hourglass(x, 2))]

    def _hourglass(self, x: Tensor, place: int) -> Tensor:
        middle = self.inner[place](self.pool(x))
        deep = self.out[place + 1](self.inner[place + 1](self.pool(middle)))
        middle = self.out[place](self.around[place + 1](middle) + self.up(deep))
        return self.around[place](x) + self.up(middle)
