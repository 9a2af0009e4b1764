"""A network in a person's own file, from its own checkpoint to a narrow one that is tested in another place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from base_model import build_any
from rr import load_converted
from rr.graph import ChannelGraph
from tests import scripts
from tests.experiments.runs import PAPER, pruned

pytestmark = pytest.mark.slow

EVALUATE = "tools/evaluate.py"
MINE = """
from torch import nn
from torch.nn import functional as F

class Mine(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(16)
        self.up = nn.Conv2d(16, 32, 1, bias=False)
        self.up_bn = nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False)
        self.depthwise_bn = nn.BatchNorm2d(32)
        self.down = nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        x = F.relu(self.stem_bn(self.stem(x)))
        y = F.relu(self.depthwise_bn(self.depthwise(F.relu(self.up_bn(self.up(x))))))
        return self.head(F.relu(x + self.down(y)).mean((2, 3)))

def build(num_classes, in_channels):
    return Mine(num_classes, in_channels)

def other(num_classes, in_channels):
    return Mine(num_classes, in_channels)
"""


def test_a_network_of_ones_own_from_its_own_checkpoint(tmp_path: Path) -> None:
    path, weights, folder = tmp_path / "mine.py", tmp_path / "mine.pth", tmp_path / "resrep_models" / "mine-build_train"
    path.write_text(MINE)
    name = f"{path}:build"
    torch.manual_seed(0)
    torch.save({"model": build_any(name, 10, 1).state_dict(), "epoch": 7}, weights)
    pruned(*PAPER, "-a", name, "--weights", weights, "--flops-target", "0.5", cwd=tmp_path)
    result = json.loads((folder / "result.json").read_text())
    assert result["conversion"]["macs_ratio"] <= 0.5
    assert result["conversion"]["float64_difference"] <= 1e-10
    assert result["converted"]["loss"] == pytest.approx(result["last_epoch"]["loss"], rel=1e-4)

    slim = load_converted(folder / "finish_converted.hdf5", build_any(name, 10, 1))
    graph = ChannelGraph(slim, torch.zeros(1, 1, 8, 8))
    assert graph.macs(np.ones(graph.num_units, dtype=bool)) == result["conversion"]["macs_after"]

    refused = scripts.call(EVALUATE, folder / "finish_converted.hdf5")
    assert refused.returncode == 2
    assert f"give -a {name}" in refused.stderr  # a weight file doesn't make the tool run a file
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / path.name)
    for file, kind in (
        ("finish_converted.hdf5", "converted"),
        ("finish_converted.pth", "converted"),
        ("finish.hdf5", "in training"),
    ):
        tested = scripts.call(EVALUATE, folder / file, "-a", f"{moved}:build")
        assert tested.returncode == 0, tested.stderr
        assert kind in tested.stdout
        assert f"top1={result['converted']['top1']:.4f}" in tested.stdout
    other = scripts.call(EVALUATE, folder / "finish.hdf5", "-a", f"{moved}:other")
    assert other.returncode == 2
    assert "holds a" in other.stderr
