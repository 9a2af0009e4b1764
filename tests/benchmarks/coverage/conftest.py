"""Tiny networks that are examined."""

from __future__ import annotations

from pathlib import Path

import pytest

TINY = """
import torch
from torch import nn
def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8),
                         nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
class Attends(nn.Module):
    def __init__(self, gate):
        super().__init__()
        self.gate = gate
        self.first, self.second, self.last = nn.Conv2d(3, 8, 16, 16), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)
    def forward(self, x):
        x = self.second(self.first(x)).flatten(2)
        if self.gate:
            return self.last((x * x.softmax(1)).mean(2))
        return self.last((x.transpose(1, 2) @ x).softmax(1).mean(1).unsqueeze(1).mul(x).mean(2))
def gated():
    return nn.Sequential(Attends(True))
def attends():
    return Attends(False)
def refuses():
    class Refuses(nn.Module):
        def forward(self, x):
            raise RuntimeError("not | today")
    return nn.Sequential(nn.Conv2d(3, 8, 3), Refuses())
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.py"
    path.write_text(TINY)
    return path
