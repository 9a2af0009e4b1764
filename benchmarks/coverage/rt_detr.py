"""A small detector in the way of RT-DETR: convolutional backbone, hybrid encoder, transformer decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """conv-BN-SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.SiLU()
    )


class Residual(nn.Module):
    """Two convolutions beside an identity, [N, C, H, W] -> [N, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(conv(channels, channels), conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Fusion(nn.Module):
    """Two levels made one, in the way of a cross-stage partial block: [N, 2 C, H, W] -> [N, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.left, self.right = conv(2 * channels, channels, 1), conv(2 * channels, channels, 1)
        self.inner = nn.Sequential(Residual(channels), Residual(channels))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        joined = torch.cat([a, b], dim=1)
        return self.inner(self.left(joined)) + self.right(joined)


class HybridEncoder(nn.Module):
    """Attention within the coarsest of three levels, then all fused by convolutions, top-down and bottom-up."""

    def __init__(self, widths: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels)) for width in widths]
        )
        self.attention = nn.TransformerEncoderLayer(channels, 4, 2 * channels, 0.0, "gelu", batch_first=True)
        self.laterals = nn.ModuleList([conv(channels, channels, 1) for _ in range(2)])
        self.down = nn.ModuleList([conv(channels, channels, 3, 2) for _ in range(2)])
        self.top_down = nn.ModuleList([Fusion(channels) for _ in range(2)])
        self.bottom_up = nn.ModuleList([Fusion(channels) for _ in range(2)])

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        fine, middle, coarse = (layer(level) for layer, level in zip(self.projections, levels, strict=True))
        tokens = coarse.flatten(2).transpose(1, 2)  # [N, H W, C]
        tokens = self.attention(tokens + positions(coarse))
        coarse = self.laterals[0](tokens.transpose(1, 2).reshape(coarse.shape))
        middle = self.laterals[1](self.top_down[0](F.interpolate(coarse, size=middle.shape[2:]), middle))
        fine = self.top_down[1](F.interpolate(middle, size=fine.shape[2:]), fine)
        middle = self.bottom_up[0](self.down[0](fine), middle)
        coarse = self.bottom_up[1](self.down[1](middle), coarse)
        return [fine, middle, coarse]


class Decoder(nn.Module):
    """Learned queries that attend to all levels; scores and boxes after each layer."""

    def __init__(self, channels: int, classes: int, queries: int, layers: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, channels))
        self.layers = nn.ModuleList(
            [nn.TransformerDecoderLayer(channels, 4, 2 * channels, 0.0, batch_first=True) for _ in range(layers)]
        )
        self.scores = nn.ModuleList([nn.Linear(channels, classes) for _ in range(layers)])
        self.boxes = nn.ModuleList(
            [nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, 4)) for _ in range(layers)]
        )

    def forward(self, levels: list[Tensor]) -> dict[str, list[Tensor]]:
        memory = torch.cat([(level + grid(level)).flatten(2) for level in levels], dim=2).transpose(1, 2)
        found: dict[str, list[Tensor]] = {"scores": [], "boxes": []}
        x = self.queries.expand(len(memory), -1, -1)
        for layer, scores, boxes in zip(self.layers, self.scores, self.boxes, strict=True):
            x = layer(x, memory)
            found["scores"].append(scores(x))
            found["boxes"].append(boxes(x).sigmoid())
        return found


class RTDETR(nn.Module):
    """Images [N, 3, H, W] -> scores [N, queries, classes] and boxes [N, queries, 4] of each layer of the decoder."""

    def __init__(self, classes: int = 20, channels: int = 64, queries: int = 30, layers: int = 2) -> None:
        super().__init__()
        widths = (32, 64, 96)
        self.stem = nn.Sequential(conv(3, 16, 3, 2), conv(16, 24, 3, 2))
        self.stages = nn.ModuleList(
            [
                nn.Sequential(conv(before, width, 3, 2), Residual(width), Residual(width))
                for before, width in zip((24, *widths[:2]), widths, strict=True)
            ]
        )
        self.encoder = HybridEncoder(widths, channels)
        self.decoder = Decoder(channels, classes, queries, layers)

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        x, levels = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return self.decoder(self.encoder(levels))


def positions(like: Tensor) -> Tensor:
    """Of each pixel of [N, C, H, W], as tokens [1, H W, C]."""
    return grid(like).flatten(2).transpose(1, 2)


def grid(like: Tensor) -> Tensor:
    """Sines and cosines of both coordinates, [1, C, H, W]."""
    channels, height, width = like.shape[1:]
    rates = 100 ** -torch.linspace(0, 1, channels // 4, dtype=like.dtype)
    y = torch.arange(height, dtype=like.dtype)[:, None] * rates  # [H, C / 4]
    x = torch.arange(width, dtype=like.dtype)[:, None] * rates
    rows = torch.cat([y.sin(), y.cos()], dim=1).T[:, :, None].expand(-1, -1, width)
    columns = torch.cat([x.sin(), x.cos()], dim=1).T[:, None, :].expand(-1, height, -1)
    return torch.cat([rows, columns])[None]
