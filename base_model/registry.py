"""Our networks: their full widths, and how to build one with these or others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import index

from torch import nn

from base_model.cifar_resnet import CifarResNet, cifar_resnet_widths
from base_model.imagenet_resnet import ImageNetResNet, imagenet_resnet_widths
from base_model.lenet import LeNet5BN, lenet_widths
from base_model.mobilenet import CIFAR_STRIDES, IMAGENET_STRIDES, MobileNet, mobilenet_widths
from base_model.names import CIFAR_DEPTHS, IMAGENET_BLOCKS, ModelInfo, model_info, model_names
from base_model.vgg import VGG, vgg_widths
from rr.errors import InputError


@dataclass(frozen=True)
class _Entry:
    """One network: its info, each layer's name and full width in building order, and the constructor."""

    info: ModelInfo
    widths: dict[str, int]
    build: Callable[..., nn.Module]
    needs_image_size: bool = False


def _entries() -> dict[str, _Entry]:
    """All networks by name."""
    parts: dict[str, tuple[dict[str, int], Callable[..., nn.Module], bool]] = {
        "vc": (vgg_widths(), VGG, True),
        "smi1": (mobilenet_widths(), partial(MobileNet, IMAGENET_STRIDES, "fc"), False),
        "smi1_cifar": (mobilenet_widths(), partial(MobileNet, CIFAR_STRIDES, "linear"), False),
        "lenet5bn": (lenet_widths(), LeNet5BN, True),
    }
    for depth in CIFAR_DEPTHS:
        blocks = (depth - 2) // 6
        parts[f"src{depth}"] = cifar_resnet_widths(blocks), partial(CifarResNet, blocks), False
    for depth, blocks in IMAGENET_BLOCKS.items():
        parts[f"sres{depth}"] = imagenet_resnet_widths(blocks), partial(ImageNetResNet, blocks), False
    return {name: _Entry(model_info(name), *parts[name]) for name in model_names()}


_ENTRIES = _entries()


def _entry(name: str) -> _Entry:
    return _ENTRIES[model_info(name).name]


def full_widths(name: str) -> list[int]:
    """The widths of the unpruned network `name`, in the order that `build_model` takes them.

    Raises:
        InputError: for an unknown name.
    """
    return list(_entry(name).widths.values())


def build_model(
    name: str,
    widths: Sequence[int] | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    image_size: int | None = None,
    folded: bool = False,
) -> nn.Module:
    """Build a freshly initialised network, [N, in_channels, H, W] -> logits [N, num_classes].

    Args:
        name: one of `model_names()`.
        widths: the width of every convolution, then of every hidden linear layer, in building order (a stage's
            projection comes before its blocks); None for the full network.
        num_classes: size of the output; None for that of the network's usual dataset.
        in_channels: channels of the images; None for those of the network's usual dataset.
        image_size: side of the images; None for that of the network's usual dataset. Only `vc` and `lenet5bn`
            depend on it, with the size of their first linear layer.
        folded: True for convolutions with a bias and no batch norm, as conversion leaves them.

    Raises:
        InputError: for an unknown name, or for widths or sizes with which the network can't be built.
    """
    entry = _entry(name)
    info = entry.info
    num_classes = info.num_classes if num_classes is None else num_classes
    in_channels = info.in_channels if in_channels is None else in_channels
    image_size = info.image_size if image_size is None else image_size
    for what, value in (("num_classes", num_classes), ("in_channels", in_channels), ("image_size", image_size)):
        if value < 1:
            raise InputError(f"{what} is {value}: give at least 1")
    named = entry.widths if widths is None else _named_widths(entry, widths)
    sizes = {"image_size": image_size} if entry.needs_image_size else {}
    return entry.build(widths=named, num_classes=num_classes, in_channels=in_channels, folded=folded, **sizes)


def _named_widths(entry: _Entry, widths: Sequence[int]) -> dict[str, int]:
    """Width by layer name; InputError if there are too few or too many, or one below 1."""
    names = list(entry.widths)
    if len(widths) != len(names):
        raise InputError(
            f"{entry.info.name} takes {len(names)} widths, got {len(widths)}: give one per layer in building order, "
            f"{', '.join(names[:4])}, ..., {names[-1]}"
        )
    named = {name: index(width) for name, width in zip(names, widths, strict=True)}
    for name, width in named.items():
        if width < 1:
            raise InputError(f"the width of {name} is {width}: give at least 1")
    return named
