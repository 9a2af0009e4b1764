"""Pruned networks in `.safetensors` and `.pt2`: what comes back, with what, and what is refused."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rr
from base_model import build_model
from rr import InputError, NetworkCard, load_pruned, save_pruned
from rr.weights.networks import note_widths
from tests.rr.small_network import small_network

CARD = NetworkCard(classes=("cat", "dog", "fish"), mean=(0.5,) * 3, std=(0.25,) * 3, in_channels=3, image_size=8)


class OneWay(nn.Module):
    """Its forward goes by the pixels' values, which torch.export can't follow."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3))) if x.sum() > 0 else self.fc(-x.mean((2, 3)))


def pruned() -> nn.Module:
    torch.manual_seed(0)
    model = small_network().eval()
    return rr.prune(model, torch.randn(2, 3, 8, 8), [torch.randn(16, 3, 8, 8)], flops_target=0.5)


@pytest.mark.slow
def test_a_pruned_network_comes_back_with_its_card(tmp_path: Path) -> None:
    slim, images = pruned(), torch.randn(3, 3, 8, 8)
    save_pruned(slim, tmp_path / "new" / "slim.safetensors", CARD)
    loaded = load_pruned(tmp_path / "new" / "slim.safetensors", small_network())
    assert torch.equal(loaded(images), slim(images))
    assert not loaded.training
    assert loaded.card == replace(CARD, widths=slim.converted_widths, version=rr.__version__)
    assert loaded.converted_widths == slim.converted_widths
    with pytest.raises(InputError, match="doesn't name its network"):
        load_pruned(tmp_path / "new" / "slim.safetensors")


@pytest.mark.slow
def test_a_name_is_enough(tmp_path: Path) -> None:
    model = note_widths(build_model("lenet5bn", num_classes=5).eval(), [20, 50, 500])
    card = NetworkCard(architecture="lenet5bn", keywords={"num_classes": 5}, in_channels=1, image_size=28)
    save_pruned(model, tmp_path / "a.safetensors", card)
    images = torch.randn(2, 1, 28, 28)
    assert torch.equal(load_pruned(tmp_path / "a.safetensors")(images), model(images))


@pytest.mark.slow
def test_the_program_runs_with_torch_alone_at_any_batch_and_size(tmp_path: Path) -> None:
    slim = pruned()
    save_pruned(slim, tmp_path / "slim.safetensors", CARD)
    images = [torch.randn(n, 3, h, w) for n, h, w in ((1, 8, 8), (5, 13, 9))]
    torch.save([(x, slim(x).detach()) for x in images], tmp_path / "expected.pth")
    code = (
        "import json, sys, torch\n"
        "extra = {'resrep.json': ''}\n"
        "net = torch.export.load('slim.pt2', extra_files=extra).module()\n"
        "for x, y in torch.load('expected.pth'): torch.testing.assert_close(net(x), y)\n"
        "assert json.loads(extra['resrep.json'])['classes'] == ['cat', 'dog', 'fish']\n"
        "assert not {'rr', 'base_model'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_exported_is_told_in_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.pt2").write_text("of another network")
    with caplog.at_level(logging.WARNING):
        save_pruned(note_widths(OneWay(), [3]), tmp_path / "a.safetensors", CARD)
    (line,) = (record.getMessage() for record in caplog.records if record.name == "rr.export.pruned")
    assert line.startswith("no a.pt2 is written: torch can't export the network")
    assert "\n" not in line
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.slow
def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        save_pruned(pruned(), tmp_path / "a.hdf5", CARD)
    with pytest.raises(InputError, match="isn't a converted one"):
        save_pruned(small_network(), tmp_path / "a.safetensors", CARD)
    with pytest.raises(InputError, match="plain, finite values"):
        save_pruned(pruned(), tmp_path / "a.safetensors", replace(CARD, recipe={"lr": float("nan")}))
    assert not list(tmp_path.iterdir())
