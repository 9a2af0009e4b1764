"""Small networks on sounds and texts: one dimension, or a sequence read off an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """conv-BN-ReLU along one dimension."""
    return nn.Sequential(nn.Conv1d(inputs, outputs, kernel, stride), nn.BatchNorm1d(outputs), nn.ReLU())


class M5(nn.Module):
    """Raw sounds [N, 1, T] -> log-probabilities [N, classes] (Dai et al.)."""

    def __init__(self, classes: int = 35, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(conv(1, width, 80, 16), nn.MaxPool1d(4)),
            *(conv(width, width), nn.MaxPool1d(4)),
            *(conv(width, 2 * width), nn.MaxPool1d(4)),
            *(conv(2 * width, 2 * width), nn.MaxPool1d(4)),
        )
        self.classifier = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x)
        x = F.avg_pool1d(x, x.shape[-1]).transpose(1, 2)
        return F.log_softmax(self.classifier(x), dim=2).squeeze(1)


class CausalBlock(nn.Module):
    """Two dilated convolutions that see the past alone, beside an identity or a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.pad = 2 * dilation
        self.conv1 = nn.Conv1d(inputs, outputs, 3, padding=self.pad, dilation=dilation)
        self.conv2 = nn.Conv1d(outputs, outputs, 3, padding=self.pad, dilation=dilation)
        self.norm1, self.norm2 = nn.BatchNorm1d(outputs), nn.BatchNorm1d(outputs)
        self.shortcut = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)[:, :, : -self.pad]))
        y = F.relu(self.norm2(self.conv2(y)[:, :, : -self.pad]))
        return F.relu(y + self.shortcut(x))


class TCN(nn.Module):
    """A temporal convolutional network, [N, 8, T] -> [N, classes], of the last step."""

    def __init__(self, classes: int = 10, widths: tuple[int, ...] = (24, 24, 32)) -> None:
        super().__init__()
        pairs = zip((8, *widths), widths, strict=False)
        self.blocks = nn.Sequential(*[CausalBlock(a, b, 2**place) for place, (a, b) in enumerate(pairs)])
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x)[:, :, -1])


class WaveNet(nn.Module):
    """Gated dilated convolutions, whose outputs add up in a stream and in skips: [N, 1, T] -> [N, levels, T]."""

    def __init__(self, levels: int = 64, width: int = 24, layers: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, width, 1)
        dilations = [2 ** (place % 4) for place in range(layers)]
        self.filters = nn.ModuleList([nn.Conv1d(width, width, 3, padding=d, dilation=d) for d in dilations])
        self.gates = nn.ModuleList([nn.Conv1d(width, width, 3, padding=d, dilation=d) for d in dilations])
        self.residuals = nn.ModuleList([*[nn.Conv1d(width, width, 1) for _ in dilations[1:]], nn.Identity()])
        self.skips = nn.ModuleList([nn.Conv1d(width, 2 * width, 1) for _ in dilations])
        self.tail = nn.Sequential(nn.ReLU(), nn.Conv1d(2 * width, width, 1), nn.ReLU(), nn.Conv1d(width, levels, 1))

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.first(x), 0.0
        for kept, gate, residual, skip in zip(self.filters, self.gates, self.residuals, self.skips, strict=True):
            y = torch.tanh(kept(x)) * torch.sigmoid(gate(x))
            x, total = x + residual(y), total + skip(y)
        return self.tail(total)


class KeywordSpotter(nn.Module):
    """DS-CNN: depthwise separable convolutions on a spectrogram [N, 1, T, 40] -> [N, classes]."""

    def __init__(self, classes: int = 12, width: int = 32, blocks: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(width), nn.ReLU())
        parts = []
        for _ in range(blocks):
            parts += [nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            parts += [nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.blocks = nn.Sequential(*parts)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class CRNN(nn.Module):
    """Lines of text [N, 1, 32, W] -> logits [N, W / 4, classes]: convolutions, then a recurrent layer both ways.

    Args:
        classes: of characters, the blank among them.
        recurrent: nn.LSTM or nn.GRU.
    """

    def __init__(self, classes: int = 37, recurrent: type[nn.LSTM] | type[nn.GRU] = nn.LSTM) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

        self.convs = nn.Sequential(
            *(*layer(1, 16), nn.MaxPool2d(2), *layer(16, 32), nn.MaxPool2d(2)),
            *(*layer(32, 48), *layer(48, 48), nn.MaxPool2d((2, 1)), *layer(48, 64), nn.AdaptiveAvgPool2d((1, None))),
        )
        self.recurrent = recurrent(64, 32, bidirectional=True, batch_first=True)
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        sequence = self.convs(x).squeeze(2).transpose(1, 2)  # [N, W / 4, C]
        return self.head(self.recurrent(sequence)[0])


class SpeechRecogniser(nn.Module):
    """In the way of Deep Speech 2: a spectrogram [N, 1, F, T] -> logits [N, T / 2, classes]; channels and F are one."""

    def __init__(self, classes: int = 29, width: int = 16, bands: int = 32) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            *(nn.Conv2d(1, width, (11, 5), (2, 2), (5, 2)), nn.BatchNorm2d(width), nn.Hardtanh(0, 20)),
            *(nn.Conv2d(width, width, (11, 5), (2, 1), (5, 2)), nn.BatchNorm2d(width), nn.Hardtanh(0, 20)),
        )
        self.recurrent = nn.GRU(width * (bands // 4), 32, batch_first=True)
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(self.convs(x).flatten(1, 2).transpose(1, 2))[0])
