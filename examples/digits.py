"""What every example trains: a small residual network on scikit-learn's handwritten digits, like a project of yours."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from rr import ConversionReport

Data = tuple[Tensor, Tensor]  # images [N, 1, 8, 8], labels [N]

# The paper's settings are for hundreds of thousands of steps. These runs take 440, so everything must go faster.
SHORT_RUN = {"penalty": 0.01, "mask_interval": 10, "rows_per_update": 6, "compactor_momentum": 0.9}


class Block(nn.Module):
    """Two conv-BN on a residual stream, [N, in, H, W] -> [N, out, H / stride, W / stride]."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class Net(nn.Module):
    """Images [N, 1, 8, 8] -> logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.Sequential(Block(8, 16, stride=2), Block(16, 32, stride=2))
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


def load_data(device: str = "cpu") -> tuple[Data, Data]:
    """1,437 images to train on, and every fifth, 360 in all, to test on."""
    source = load_digits()
    images = torch.from_numpy(source.images).float().div(16)[:, None].to(device)  # [1797, 1, 8, 8], 0 ... 1
    labels = torch.from_numpy(source.target).long().to(device)
    test = torch.arange(len(labels), device=device) % 5 == 2
    return (images[~test], labels[~test]), (images[test], labels[test])


def batches(data: Data, epoch: int, batch_size: int = 64) -> Iterator[Data]:
    """Whole batches, in an order that depends on the epoch alone."""
    images, labels = data
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch)).to(labels.device)
    for part in order[: len(order) // batch_size * batch_size].split(batch_size):
        yield images[part], labels[part]


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    """Share of the images that the model gets right; the model is in eval mode from here on."""
    images, labels = data
    return float((model.eval()(images).argmax(1) == labels).float().mean())


def trained_network(data: Data, epochs: int = 4) -> Net:
    """The network to be pruned, trained as usual on the data's device."""
    torch.manual_seed(0)
    model = Net().to(data[0].device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    for epoch in range(epochs):
        for images, labels in batches(data, epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model


def options(description: str, epochs: int) -> argparse.ArgumentParser:
    """The command line of an example, for more options to be added."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--epochs", type=int, default=epochs, help="epochs of pruning (default: %(default)s)")
    return parser


def show(report: ConversionReport, before: float, trained: float, slim: float) -> None:
    """Print what came of it: accuracies, MACs, and how equal the narrow network is to the one with compactors."""
    print(f"accuracy: {before:.2%} before, {trained:.2%} with compactors, {slim:.2%} pruned")
    print(f"MACs: {report.macs_before:,} before, {report.macs_after:,} pruned, ratio {report.macs_ratio:.4f}")
    print(f"difference: {report.float64_difference:.1e} in float64, {report.float32_difference:.1e} in float32")
