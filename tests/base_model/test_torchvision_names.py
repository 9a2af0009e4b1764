"""The names of torchvision's ResNets and ours: one to one, and nothing else is taken."""

from __future__ import annotations

import pytest
import torch
import torchvision

from base_model import build_model
from base_model.torchvision_names import from_torchvision, our_name


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("conv1.weight", "conv1.conv.weight"),
        ("bn1.running_mean", "conv1.bn.running_mean"),
        ("layer1.0.conv1.weight", "stage1.block0.conv1.conv.weight"),
        ("layer3.22.bn3.bias", "stage3.block22.conv3.bn.bias"),
        ("layer1.0.downsample.0.weight", "stage1.projection.conv.weight"),
        ("layer4.0.downsample.1.running_var", "stage4.projection.bn.running_var"),
        ("fc.bias", "fc.bias"),
    ],
)
def test_examples(theirs: str, ours: str) -> None:
    assert our_name(theirs) == ours


@pytest.mark.slow
@pytest.mark.parametrize("depth", [50, 101, 152])
def test_one_to_one_with_shapes(depth: int) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.get_model(f"resnet{depth}", weights=None).state_dict()
        ours = build_model(f"sres{depth}").state_dict()
    renamed = from_torchvision(theirs)
    assert {name: tensor.shape for name, tensor in renamed.items()} == {n: tensor.shape for n, tensor in ours.items()}
    assert len(renamed) == len(theirs)


@pytest.mark.parametrize(
    "name", ["features.0.weight", "layer1.1.downsample.0.weight", "module.conv1.weight", "fc.mean"]
)
def test_refuses_other_names(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        our_name(name)
