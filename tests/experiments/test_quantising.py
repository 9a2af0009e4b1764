"""A network in int8 on real images: by which labels it is right, on what it is tested, and what is refused."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from data.images import BadImages
from experiments.quantising import batches_of, check_int8, quantised
from rr import InputError, NetworkCard
from rr.export import exported_program

# The folders' order isn't that of the outputs.
CARD = NetworkCard(classes=("dark", "bright"), mean=(0.5,), std=(0.25,), in_channels=1, image_size=8)


def folder(root: Path, split: str, shown: dict[str, list[int]]) -> None:
    """Grey images of these values, by class."""
    for name, values in shown.items():
        (root / split / name).mkdir(parents=True)
        for place, value in enumerate(values):
            Image.fromarray(np.full((8, 8), value, np.uint8)).save(root / split / name / f"{place}.png")


def options(**given: object) -> argparse.Namespace:
    usual = {"int8": True, "format": "onnx", "calibrate": Path("images"), "calibration_images": 3, "weights": Path("a")}
    return argparse.Namespace(**{**usual, **given})


@pytest.mark.slow
def test_both_forms_are_tested_on_the_validation_images(tmp_path: Path) -> None:
    folder(tmp_path, "train", {"bright": [200, 255], "dark": [0, 30]})
    folder(tmp_path, "val", {"bright": [220, 250, 10], "dark": [20]})  # one has the wrong name
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2)).eval()
    for layer, weight in ((model[0], torch.ones(1, 1, 3, 3)), (model[3], torch.tensor([[-1.0], [1.0]]))):
        layer.weight.data, layer.bias.data = weight, torch.zeros(len(weight))
    program, _ = exported_program(model, torch.zeros(2, 1, 8, 8))
    text = quantised(model, program, CARD, 8, tmp_path / "a.int8.onnx", options(calibrate=tmp_path))
    assert "top-1 75.00% in float32, 75.00% in int8; the same answer on 100.00%" in text
    found = json.loads((tmp_path / "a.int8.onnx.json").read_text())["int8"]
    assert found == {"images": 4, "before": 75.0, "after": 75.0, "same": 100.0, "calibration_images": 3}
    other = NetworkCard(classes=("dark", "light"), mean=(0.5,), std=(0.25,))
    with pytest.raises(InputError, match="doesn't know: bright"):
        quantised(model, program, other, 8, tmp_path / "b.onnx", options(calibrate=tmp_path))
    with pytest.raises(InputError, match="how images are normalised"):
        quantised(model, program, NetworkCard(), 8, tmp_path / "b.onnx", options(calibrate=tmp_path))


def test_broken_images_are_named_at_once(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("a.png", "b.png")]
    for file in files:
        Path(file).write_text("no image")
    with pytest.raises(BadImages) as caught:
        next(batches_of(files, CARD, 8))
    assert set(caught.value.found) == set(files)


def test_options_that_do_not_go_together() -> None:
    check_int8(options())
    check_int8(options(int8=False, calibrate=None, format="pt2"))
    for given, message in (
        ({"format": "openvino"}, "needs nncf"),
        ({"format": "pt2"}, "no int8 for --format pt2"),
        ({"calibrate": None}, "--int8 needs --calibrate DIR"),
        ({"int8": False}, "--calibrate is for --int8"),
        ({"calibration_images": 0}, "--calibration-images is 0"),
    ):
        with pytest.raises(InputError, match=message):
            check_int8(options(**given))
