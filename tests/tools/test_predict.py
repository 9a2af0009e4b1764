"""Predictions by the command line: the same from every file, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from base_model import build_model
from rr import NetworkCard, save_pruned
from rr.export import exported_program
from rr.export.runtimes import write_program
from rr.weights.networks import note_widths
from tests import scripts

CARD = NetworkCard(
    architecture="lenet5bn",
    keywords={"num_classes": 6, "in_channels": 1},
    classes=("cat", "dog", "fish", "bird", "cow", "bee"),
    mean=(0.3,),
    std=(0.25,),
    in_channels=1,
    image_size=28,
)


@pytest.mark.slow
def test_every_file_says_the_same_as_the_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = note_widths(build_model("lenet5bn", num_classes=6, folded=True).eval(), [20, 50, 500])
    save_pruned(model, tmp_path / "a.safetensors", CARD)
    write_program(tmp_path / "a.onnx", "onnx", exported_program(model, torch.zeros(2, 1, 28, 28))[0], CARD)
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    images = (torch.from_numpy(pixels)[None, None] / 255 - 0.3) / 0.25
    shares = model(images).softmax(1)[0].detach()
    expected = [f"{shares[i]:6.1%}  {CARD.classes[i]}" for i in shares.argsort(descending=True)[:5]]
    for name in ("a.safetensors", "a.pt2", "a.onnx"):
        done = scripts.call("tools/predict.py", name, "x.png", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert [line.removeprefix("  ") for line in done.stdout.splitlines()[1:]] == expected
    (tmp_path / "bad.jpg").write_text("no image")
    done = scripts.call("tools/predict.py", "a.safetensors", "x.png", "bad.jpg", "none.png", cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no file none.png: check the path; broken image 'bad.jpg'" in done.stderr


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt2", "a.onnx", "a.txt"])
def test_a_damaged_file_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("x" * 100)
    done = scripts.call("tools/predict.py", name, "x.png", cwd=tmp_path)
    assert done.returncode == 2
    assert name in done.stderr
    assert done.stderr.count("\n") == 1
