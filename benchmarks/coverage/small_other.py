"""Small networks with several inputs or outputs, and generators."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """conv-BN-ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def trunk(in_channels: int = 3) -> nn.Sequential:
    """Images [N, in_channels, H, W] -> features [N, 64, H / 4, W / 4]."""
    return nn.Sequential(conv(in_channels, 16, 2), conv(16, 32), conv(32, 64, 2), conv(64, 64))


class Siamese(nn.Module):
    """Two images through the same layers -> two embeddings [N, 32]."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = trunk(), nn.Linear(64, 32)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        a, b = (self.head(self.trunk(image).mean((2, 3))) for image in (first, second))
        return a, b


class ChangeDetector(nn.Module):
    """Two images through the same layers; from the difference of their features, logits [N, 2, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.mix = trunk(), conv(64 + 64, 32)
        self.head = nn.Conv2d(32, 2, 1)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        a, b = self.trunk(before), self.trunk(after)
        x = self.head(self.mix(torch.cat([(a - b).abs(), a + b], dim=1)))
        return F.interpolate(x, size=before.shape[2:], mode="bilinear")


class TwoStreams(nn.Module):
    """An image and a depth map through layers of their own, joined by a gate: -> logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.colour, self.depth = trunk(3), trunk(1)
        self.gate = nn.Sequential(nn.Conv2d(128, 64, 1), nn.Sigmoid())
        self.head = nn.Linear(64, 10)

    def forward(self, image: Tensor, depth: Tensor) -> Tensor:
        a, b = self.colour(image), self.depth(depth)
        gate = self.gate(torch.cat([a, b], dim=1))
        return self.head((gate * a + (1 - gate) * b).mean((2, 3)))


class MultiTask(nn.Module):
    """A trunk with three heads: a class [N, 10], a class for each pixel [N, 5, H / 4, W / 4], an age [N, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = trunk()
        self.label = nn.Linear(64, 10)
        self.pixels = nn.Sequential(conv(64, 32), nn.Conv2d(32, 5, 1))
        self.age = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.trunk(x)
        pooled = x.mean((2, 3))
        return {"label": self.label(pooled), "pixels": self.pixels(x), "age": self.age(pooled)}


class PointNet(nn.Module):
    """Points [N, 3, P] in any order -> logits [N, classes], by the largest of each feature."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        widths = (3, 32, 48, 128)
        self.points = nn.Sequential(
            *[nn.Sequential(nn.Conv1d(a, b, 1), nn.BatchNorm1d(b), nn.ReLU()) for a, b in pairwise(widths)]
        )
        self.head = nn.Sequential(nn.Linear(128, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.points(x).amax(2))


class DCGenerator(nn.Module):
    """DCGAN's generator: noise [N, 32, 1, 1] -> images [N, 3, 32, 32]; from more noise, larger ones."""

    def __init__(self, noise: int = 32, width: int = 16) -> None:
        super().__init__()

        def up(inputs: int, outputs: int, stride: int = 2) -> list[nn.Module]:
            layer = nn.ConvTranspose2d(inputs, outputs, 4, stride, 1 if stride == 2 else 0, bias=False)
            return [layer, nn.BatchNorm2d(outputs), nn.ReLU(True)]

        self.layers = nn.Sequential(
            *(*up(noise, 4 * width, 1), *up(4 * width, 2 * width), *up(2 * width, width)),
            *(nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class DCDiscriminator(nn.Module):
    """DCGAN's discriminator: images [N, 3, 32, 32] -> logits [N, 1, 1, 1]."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)),
            *(nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2, True)),
            *(nn.Conv2d(2 * width, 4 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(4 * width), nn.LeakyReLU(0.2, True)),
            nn.Conv2d(4 * width, 1, 4, 1, 0, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Pix2Pix(nn.Module):
    """pix2pix' U-Net, [N, 3, H, W] -> [N, 3, H, W]; sides in multiples of 16.

    Args:
        norm: nn.BatchNorm2d or nn.InstanceNorm2d.
    """

    def __init__(self, norm: type[nn.Module] = nn.BatchNorm2d, widths: tuple[int, ...] = (16, 32, 48, 64)) -> None:
        super().__init__()
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for place, (a, b) in enumerate(zip((3, *widths), widths, strict=False)):
            norms = [norm(b)] if 0 < place < len(widths) - 1 else []
            self.down.append(nn.Sequential(nn.Conv2d(a, b, 4, 2, 1), *norms))
        for place, (a, b) in enumerate(zip(widths[:0:-1], widths[-2::-1], strict=True)):
            joined = 2 * a if place else a
            self.up.append(nn.Sequential(nn.ConvTranspose2d(joined, b, 4, 2, 1), norm(b), nn.Dropout(0.5)))
        self.head = nn.ConvTranspose2d(2 * widths[0], 3, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for place, layer in enumerate(self.down):
            x = layer(F.leaky_relu(x, 0.2) if place else x)
            kept.append(x)
        for layer, beside in zip(self.up, kept[-2::-1], strict=True):
            x = torch.cat([layer(F.relu(x)), beside], dim=1)
        return torch.tanh(self.head(F.relu(x)))


class CycleGenerator(nn.Module):
    """CycleGAN's generator: borders reflected, instance norms, residual blocks; [N, 3, H, W] -> [N, 3, H, W]."""

    def __init__(self, width: int = 16, blocks: int = 3) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
            pad = nn.ReflectionPad2d(kernel // 2)
            return [pad, nn.Conv2d(inputs, outputs, kernel, stride), nn.InstanceNorm2d(outputs), nn.ReLU(inplace=True)]

        self.down = nn.Sequential(*layer(3, width, 7), *layer(width, 2 * width, 3, 2))
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(*layer(2 * width, 2 * width, 3), *layer(2 * width, 2 * width, 3)[:-1])
                for _ in range(blocks)
            ]
        )
        self.up = nn.Sequential(
            *(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1), nn.InstanceNorm2d(width), nn.ReLU()),
            *(nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        for block in self.blocks:
            x = x + block(x)
        return self.up(x)


class StyledLayer(nn.Module):
    """A convolution whose normalised outputs a style scales and shifts, as in StyleGAN; noise is left out."""

    def __init__(self, inputs: int, outputs: int, style: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, outputs, 3, padding=1), nn.InstanceNorm2d(outputs)
        self.style = nn.Linear(style, 2 * outputs)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.style(style)[:, :, None, None].chunk(2, dim=1)
        return F.leaky_relu(self.norm(self.conv(x)) * (1 + scale) + shift, 0.2)


class StyleGenerator(nn.Module):
    """In the way of StyleGAN: a code [N, 32] becomes a style, which acts in each layer; -> images [N, 3, 16, 16]."""

    def __init__(self, code: int = 32, widths: tuple[int, ...] = (48, 32, 16)) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(code, 48), nn.LeakyReLU(0.2), nn.Linear(48, 32), nn.LeakyReLU(0.2))
        self.start = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        pairs = zip((widths[0], *widths), widths, strict=False)
        self.layers = nn.ModuleList([StyledLayer(a, b, 32) for a, b in pairs])
        self.to_image = nn.Conv2d(widths[-1], 3, 1)

    def forward(self, code: Tensor) -> Tensor:
        style = self.mapping(code)
        x = self.start.expand(len(code), -1, -1, -1)
        for place, layer in enumerate(self.layers):
            x = layer(F.interpolate(x, scale_factor=2.0) if place else x, style)
        return self.to_image(x)


class AutoEncoder(nn.Module):
    """Images [N, 3, 32, 32] -> images, mean and logarithm of the variance of a code; the code is its mean."""

    def __init__(self, code: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(conv(3, 16, 2), conv(16, 32, 2), nn.Flatten())
        self.mean, self.log_variance = nn.Linear(32 * 64, code), nn.Linear(32 * 64, code)
        self.first = nn.Linear(code, 32 * 64)
        self.decoder = nn.Sequential(
            *(nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU()), nn.ConvTranspose2d(16, 3, 4, 2, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.encoder(x)
        mean = self.mean(features)
        return self.decoder(F.relu(self.first(mean)).view(-1, 32, 8, 8)), mean, self.log_variance(features)
