"""Networks as programs: which sizes stay free, and what can't be saved."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import InputError, NetworkCard
from rr.export import exported_program, save_program


class Same(nn.Module):
    """Pads as timm's `tf_` networks do: by the size of the images, rounded up."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        pads = [max((math.ceil(size / 2) - 1) * 2 + 3 - size, 0) for size in x.shape[2:]]
        return self.conv(F.pad(x, (0, pads[1], 0, pads[0]))).mean((2, 3))


class FreesItsInput(nn.Module):
    """Doubles an activation, and frees the memory of what it has read."""

    def forward(self, x: Tensor) -> Tensor:
        y = 2 * x
        x.data.set_()
        return y


def test_sizes_that_are_rounded_are_fixed_and_the_batch_is_free(tmp_path: Path) -> None:
    model = Same().train()
    ceil = torch.SymFloat.__ceil__
    program, any_size = exported_program(model, torch.zeros(1, 1, 8, 8))
    assert not any_size
    assert model.training
    assert torch.SymFloat.__ceil__ is ceil
    save_program(tmp_path / "a.pt2", program, NetworkCard())
    images = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(torch.export.load(tmp_path / "a.pt2").module()(images), model(images))


class Gated(nn.Module):
    """A map, of one pixel where images have four, times one number a channel (squeeze and excitation)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, stride=4, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y * y.mean((2, 3), keepdim=True)


def test_a_map_of_one_pixel_in_the_example_fixes_the_size() -> None:
    """torch takes the one for a constant: an ONNX file of that says that larger images give one pixel, too."""
    assert not exported_program(Gated(), torch.zeros(2, 1, 4, 4))[1]
    program, any_size = exported_program(model := Gated(), torch.zeros(2, 1, 8, 8))
    assert any_size
    images = torch.randn(3, 1, 12, 21)
    torch.testing.assert_close(program.module()(images), model(images))


def test_what_torch_cannot_save_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("op is not in the list\nand more")

    program, any_size = exported_program(nn.Conv2d(1, 2, 3), torch.zeros(2, 1, 8, 8))
    assert any_size
    monkeypatch.setattr(torch.export, "save", refuse)
    (tmp_path / "a.pt2").write_text("old")
    with pytest.raises(InputError, match=r"^torch can't save the program \(.*op is not in the list\)$"):
        save_program(tmp_path / "a.pt2", program, NetworkCard())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_forward_that_frees_memory_is_exported() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), FreesItsInput(), nn.Conv2d(4, 2, 1))
    images = torch.randn(3, 3, 8, 8)
    program, any_size = exported_program(model, images)
    assert any_size
    torch.testing.assert_close(program.module()(images), model(images))
