"""The proof: a wrong conversion is noticed, and copies on disk are apart."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.coverage import proof
from benchmarks.coverage.examination import examine
from benchmarks.coverage.figures import bars
from benchmarks.coverage.proof import counted_macs, give, on_disk


@pytest.mark.slow
def test_a_wrong_conversion_misses_the_bars(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert, fold = proof.convert, proof.fold

    def spoiled(slim: nn.Module) -> nn.Module:
        with torch.no_grad():
            next(module for module in slim.modules() if isinstance(module, nn.Conv2d)).weight.mul_(1.01)
        return slim

    def wrong(*arguments: Any, **options: Any) -> Any:
        slim, report = convert(*arguments, **options)
        return spoiled(slim), report

    monkeypatch.setattr(proof, "convert", wrong)
    monkeypatch.setattr(proof, "fold", lambda *arguments: spoiled(fold(*arguments)))
    found = bars(examine(f"{tiny}:build", most_parameters=10_000))
    assert {bar for bar, passed in found.items() if not passed} == {"float64", "float32", "converts_again"}


def test_what_is_written_to_a_copy_on_disk_is_in_no_other() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = copy.deepcopy(model.state_dict())
    copies = on_disk(model, copies=2)
    names = list(dict(model.named_parameters()))
    for _ in range(2):
        give(model, copies.pop())
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert list(dict(model.named_parameters())) == names
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.zero_()


def test_macs_of_fused_attention_and_of_queries_are_counted() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.queries = nn.Parameter(torch.randn(3, 8))
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.queries.expand(len(x), -1, -1) + x)

    projections, mlp = 3 * 8 * 24 + 3 * 8 * 8, 2 * 3 * 8 * 16  # and not the products of attention, on the CPU
    assert counted_macs(Attends(), (torch.randn(1, 3, 8),)) == projections + mlp
