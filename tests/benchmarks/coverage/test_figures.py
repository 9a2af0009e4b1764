"""Families and bars of the coverage benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.coverage.figures import BARS, bars, largest_difference, proven, series
from tests.benchmarks.coverage.helpers import figures

RESULTS = Path(__file__).resolve().parents[3] / "results" / "coverage.json"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torchvision/resnet18", "ResNet"),
        ("torchvision/wide_resnet50_2", "ResNet"),
        ("src20", "ResNet"),
        ("timm/resnetv2_18", "ResNet v2"),
        ("timm/resnext26ts", "ResNeXt"),
        ("timm/seresnext26d_32x4d", "SE- and ECA-ResNet"),
        ("timm/legacy_senet154", "SE- and ECA-ResNet"),
        ("timm/legacy_seresnet18", "SE- and ECA-ResNet"),
        ("timm/res2next50", "Res2Net"),
        ("timm/dm_nfnet_f0", "NFNet"),
        ("timm/inception_next_atto", "InceptionNeXt"),
        ("timm/inception_resnet_v2", "Inception"),
        ("timm/cspresnet50", "CSPNet and Darknet"),
        ("timm/cs3darknet_s", "CSPNet and Darknet"),
        ("timm/regnetz_005", "RegNet"),
        ("timm/mnasnet_small", "MnasNet"),
        ("timm/pnasnet5large", "NASNet"),
        ("timm/efficientvit_m0", "EfficientViT"),
        ("timm/convnextv2_atto", "ConvNeXt"),
        ("ultralytics/yolo11n", "YOLO"),
        ("torchvision/fasterrcnn_resnet50_fpn", "Faster R-CNN"),
        ("smp/unetplusplus-resnet18", "U-Net"),
        ("smp/fpn-resnet18", "FPN"),
        ("own/rcan", "Super-resolution"),
        ("timm/somethingnew_b0", "somethingnew"),
        ("my/networks.py:build", "networks"),
    ],
)
def test_series(name: str, expected: str) -> None:
    assert series(name) == expected


def test_bars_of_a_model_that_passes() -> None:
    assert bars(figures()) == dict.fromkeys(BARS, True)
    assert proven(figures())
    assert largest_difference(figures()) == 2e-15


@pytest.mark.parametrize(
    ("bar", "path", "value"),
    [
        ("float64", ("float64_difference",), 1.1e-10),
        ("float64", ("differences", "2 x 3 x 96 x 96", "float64"), 1.1e-10),
        ("float64", ("differences", "2 x 3 x 96 x 96", "float64"), float("nan")),
        ("float64", ("half", "float64_difference"), 1.1e-10),
        ("float32", ("differences", "1 x 3 x 64 x 64", "float32"), 1.1e-6),
        ("float32", ("differences", "1 x 3 x 64 x 64", "float32"), float("nan")),
        ("converts_again", ("converts_again",), False),
        ("trains", ("trains",), "RuntimeError: no"),
        ("exports", ("exports",), False),
        ("reaches_half", ("half", "macs_ratio"), 0.51),
        ("reaches_half", ("half", "macs_ratio_counted"), 0.51),
    ],
)
def test_one_figure_misses_one_bar(bar: str, path: tuple[str, ...], value: object) -> None:
    found = figures()
    place = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert [name for name, passed in bars(found).items() if not passed] == [bar]
    assert proven(found) == (bar == "reaches_half")  # how much can go is no matter of proof


def test_float32_may_be_as_far_off_as_the_networks_own() -> None:
    one = {"float64": 0.0, "float32": 3.9e-6, "float32_own": 1e-6}
    assert bars(figures(differences={"a": one}))["float32"] is True
    assert bars(figures(differences={"a": {**one, "float32": 4.1e-6}}))["float32"] is False


def test_what_was_not_measured_is_neither_passed_nor_missed() -> None:
    assert bars({"parameters": 3}) == dict.fromkeys(BARS)
    assert not proven({"not_run": "too large"})
    assert not proven(figures(failed="ValueError: no"))
    assert not proven(figures(dropped=0))  # the network as it was is equal to itself


def test_the_bars_in_the_file_are_those_of_its_figures() -> None:
    models = json.loads(RESULTS.read_text())["models"]
    assert models
    for name, found in models.items():
        assert found.get("bars", bars(found)) == bars(found), name
