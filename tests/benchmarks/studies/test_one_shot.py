"""Cuts without training: each way meets the target in the blocks' first layers, and what a table says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from base_model import build_model
from benchmarks.studies.cuts import INNER, convolutions
from benchmarks.studies.one_shot import WAYS, cut, with_statistics_anew
from benchmarks.studies.one_shot_plot import plot_cuts, points_of
from benchmarks.studies.one_shot_table import by_way, one_shot_table
from tests.long_cases import all_long_but
from training import count_macs

IMAGES = list(torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(0)).split(6))
LABELS = list(torch.arange(12).remainder(10).split(6))


@pytest.mark.slow
@pytest.mark.parametrize("way", all_long_but(WAYS, WAYS[0], "norm"))
def test_a_cut_meets_the_target_in_the_layers_that_are_pruned(way: str) -> None:
    torch.manual_seed(0)
    model = build_model("src20").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    slim = cut(way, model, IMAGES, LABELS, 0.6)
    ratio = count_macs(slim, IMAGES[0][:1]) / count_macs(model, IMAGES[0][:1])
    assert 0.5 < ratio <= 0.6
    full = dict(convolutions(model))
    others = {name for name, conv in convolutions(slim) if conv.out_channels == full[name].out_channels}
    assert {name for name in full if not INNER.search(name)} <= others
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_statistics_anew_are_those_of_the_images() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)).eval()
    anew = with_statistics_anew(model, IMAGES)
    outputs = model[0](torch.cat(IMAGES)).detach()
    torch.testing.assert_close(anew[1].running_mean, outputs.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert not anew.training
    assert torch.equal(model[1].running_mean, torch.zeros(4))


ONE = {"top1": 80.0, "base": 88.0, "cpu_seconds": 12.3, "mib": 1500, "images": 2000, "data": "pictures"}
ONE |= {"commit": "0123456789ab"}
RESULTS = {
    "cuts": {
        "src20 0.5 0 ours": ONE,
        "src20 0.5 1 ours": ONE | {"top1": 82.0},
        "src20 0.8 0 ours": ONE | {"top1": 87.0},
        "src20 0.5 0 theirs": ONE | {"top1": 10.0, "top1_statistics_anew": 30.0},
        "src20 0.8 0 theirs": {"failed": "out of memory", "commit": "0123456789ab"},
        "other 0.5 0 ours": ONE | {"base": 70.0, "data": "photographs", "images": 500},
    },
    "hardware": {"cpu": "a CPU", "cores": 2},
    "versions": {"torch": "2.14"},
    "threads": 1,
}


def test_a_table_of_cuts() -> None:
    text = one_shot_table(RESULTS)
    assert "| `src20`, base 88.00% | ours | 87.00% | 81.00 ± 1.41% | 12 | 1,500 |" in text
    assert "| `src20`, base 88.00% | theirs | failed | 10.00% (30.00%) | 12 | 1,500 |" in text
    assert "| `other`, base 70.00% | ours | - | 80.00% | 12 | 1,500 |" in text
    assert "`src20` on pictures, fitted to 2,000 images; `other` on photographs, fitted to 500 images" in text
    assert "mean and spread of 2 draws" in text


def test_points_are_of_the_better_statistics_and_failures_give_none() -> None:
    cuts = by_way(RESULTS)
    assert points_of(cuts["src20", "ours"]) == [(50.0, 81.0, pytest.approx(2**0.5)), (80.0, 87.0, 0.0)]
    assert points_of(cuts["src20", "theirs"]) == [(50.0, 30.0, 0.0)]


@pytest.mark.slow
def test_a_plot_of_cuts(tmp_path: Path) -> None:
    plot_cuts(RESULTS, tmp_path / "cuts.png")
    assert (tmp_path / "cuts.png").stat().st_size > 10_000
