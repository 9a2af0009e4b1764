"""Small convolutional detectors: images [N, 3, H, W] -> raw outputs by name."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """conv-BN-LeakyReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.1, inplace=True),
    )


class TinyYolo(nn.Module):
    """In the way of YOLOv3-tiny: two levels, of which the finer gets the coarser one's features."""

    def __init__(self, classes: int = 20, anchors: int = 3) -> None:
        super().__init__()
        stages = []
        before = 3
        for width in (8, 16, 32, 64):
            stages += [conv(before, width), nn.MaxPool2d(2)]
            before = width
        self.fine = nn.Sequential(*stages, conv(64, 64))
        self.coarse = nn.Sequential(nn.MaxPool2d(2), conv(64, 128), conv(128, 64, 1))
        self.up = conv(64, 32, 1)
        self.heads = nn.ModuleList(
            [nn.Sequential(conv(width, 64), nn.Conv2d(64, anchors * (5 + classes), 1)) for width in (96, 64)]
        )
        self.anchors = anchors

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        fine = self.fine(x)
        coarse = self.coarse(fine)
        joined = torch.cat([F.interpolate(self.up(coarse), size=fine.shape[2:]), fine], dim=1)
        raw = [head(level) for head, level in zip(self.heads, (joined, coarse), strict=True)]
        apart = [level.unflatten(1, (self.anchors, -1)) for level in raw]  # [N, anchors, 5 + classes, H, W]
        return {"boxes": [level[:, :, :4] for level in apart], "scores": [level[:, :, 4:] for level in apart]}


class CenterNet(nn.Module):
    """Heatmaps of objects' centres, their sizes and offsets, at a quarter of the resolution."""

    def __init__(self, classes: int = 20) -> None:
        super().__init__()
        self.down = nn.ModuleList([conv(a, b, 3, 2) for a, b in ((3, 16), (16, 32), (32, 64), (64, 96))])
        self.up = nn.ModuleList([nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False) for a, b in ((96, 64), (64, 32))])
        self.norms = nn.ModuleList([nn.BatchNorm2d(width) for width in (64, 32)])
        outputs = {"class_heatmap": classes, "size": 2, "offset": 2}
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, number, 1))
                for name, number in outputs.items()
            }
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        for layer in self.down:
            x = layer(x)
        for layer, norm in zip(self.up, self.norms, strict=True):
            x = F.relu(norm(layer(x)))
        return {name: head(x) for name, head in self.heads.items()}
