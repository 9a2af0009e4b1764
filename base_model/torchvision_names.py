"""torchvision's names of a bottleneck ResNet's weights, and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from rr.errors import InputError

_BLOCK = re.compile(r"layer(\d)\.(\d+)\.(conv|bn)(\d)\.(\w+)")
_SHORTCUT = re.compile(r"layer(\d)\.0\.downsample\.([01])\.(\w+)")
_STEM = re.compile(r"(conv|bn)1\.(\w+)")
_CLASSIFIER = re.compile(r"fc\.(weight|bias)")


def our_name(name: str) -> str:
    """The name here of the weight that torchvision's ResNets call `name`.

    Examples: `layer1.0.bn2.bias` -> `stage1.block0.conv2.bn.bias`,
    `layer1.0.downsample.0.weight` -> `stage1.projection.conv.weight`, `bn1.weight` -> `conv1.bn.weight`.

    Raises:
        InputError: if it isn't a name of a torchvision ResNet.
    """
    if match := _BLOCK.fullmatch(name):
        stage, block, layer, index, rest = match.groups()
        return f"stage{stage}.block{block}.conv{index}.{layer}.{rest}"
    if match := _SHORTCUT.fullmatch(name):
        stage, index, rest = match.groups()
        return f"stage{stage}.projection.{('conv', 'bn')[int(index)]}.{rest}"
    if match := _STEM.fullmatch(name):
        layer, rest = match.groups()
        return f"conv1.{layer}.{rest}"
    if _CLASSIFIER.fullmatch(name):
        return name
    raise InputError(f"{name!r} isn't a weight of a torchvision ResNet: give the state dict of resnet50, 101 or 152")


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A torchvision ResNet's state dict under our names; the tensors are the same objects.

    Raises:
        InputError: if a name isn't one of a torchvision ResNet.
    """
    return {our_name(name): tensor for name, tensor in state.items()}
