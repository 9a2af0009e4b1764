"""Networks by name: which there are, their full widths, and how to build one with other widths."""

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
from base_model.vgg import VGG, vgg_widths


@dataclass(frozen=True)
class ModelInfo:
    """A network's name and what it's usually trained on.

    Attributes:
        name: the name that `build_model` takes.
        dataset: name of the usual dataset.
        image_size: side of that dataset's images, in pixels.
        num_classes: number of that dataset's classes.
        in_channels: channels of that dataset's images.
    """

    name: str
    dataset: str
    image_size: int
    num_classes: int
    in_channels: int


@dataclass(frozen=True)
class _Entry:
    """One network: the info, name and full width of each layer in building order, and the constructor."""

    info: ModelInfo
    widths: dict[str, int]
    build: Callable[..., nn.Module]
    needs_image_size: bool = False


def _entries() -> dict[str, _Entry]:
    """All networks by name."""

    def cifar(name: str) -> ModelInfo:
        return ModelInfo(name, "cifar10", 32, 10, 3)

    def imagenet(name: str) -> ModelInfo:
        return ModelInfo(name, "imagenet", 224, 1000, 3)

    entries = []
    for depth in (20, 32, 44, 56, 110, 164):
        blocks = (depth - 2) // 6
        entries.append(_Entry(cifar(f"src{depth}"), cifar_resnet_widths(blocks), partial(CifarResNet, blocks)))
    for depth, blocks in ((50, (3, 4, 6, 3)), (101, (3, 4, 23, 3)), (152, (3, 8, 36, 3))):
        build = partial(ImageNetResNet, blocks)
        entries.append(_Entry(imagenet(f"sres{depth}"), imagenet_resnet_widths(blocks), build))
    entries.append(_Entry(cifar("vc"), vgg_widths(), VGG, needs_image_size=True))
    entries.append(_Entry(imagenet("smi1"), mobilenet_widths(), partial(MobileNet, IMAGENET_STRIDES, "fc")))
    entries.append(_Entry(cifar("smi1_cifar"), mobilenet_widths(), partial(MobileNet, CIFAR_STRIDES, "linear")))
    entries.append(_Entry(ModelInfo("lenet5bn", "mnist", 28, 10, 1), lenet_widths(), LeNet5BN, needs_image_size=True))
    return {entry.info.name: entry for entry in entries}


_ENTRIES = _entries()


def _entry(name: str) -> _Entry:
    if name not in _ENTRIES:
        raise ValueError(f"no model is called {name!r}: choose one of {', '.join(_ENTRIES)}")
    return _ENTRIES[name]


def model_names() -> list[str]:
    """The names that `build_model` takes."""
    return list(_ENTRIES)


def model_info(name: str) -> ModelInfo:
    """What the network `name` is usually trained on; ValueError for an unknown name."""
    return _entry(name).info


def full_widths(name: str) -> list[int]:
    """The widths of the unpruned network `name`, in the order that `build_model` takes them.

    Raises:
        ValueError: for an unknown name.
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
        ValueError: for an unknown name, or for widths or sizes with which the network can't be built.
    """
    entry = _entry(name)
    info = entry.info
    num_classes = info.num_classes if num_classes is None else num_classes
    in_channels = info.in_channels if in_channels is None else in_channels
    image_size = info.image_size if image_size is None else image_size
    for what, value in (("num_classes", num_classes), ("in_channels", in_channels), ("image_size", image_size)):
        if value < 1:
            raise ValueError(f"{what} is {value}: give at least 1")
    named = entry.widths if widths is None else _named_widths(entry, widths)
    sizes = {"image_size": image_size} if entry.needs_image_size else {}
    return entry.build(widths=named, num_classes=num_classes, in_channels=in_channels, folded=folded, **sizes)


def _named_widths(entry: _Entry, widths: Sequence[int]) -> dict[str, int]:
    """Width by layer name; ValueError if there are too few or too many, or one below 1."""
    names = list(entry.widths)
    if len(widths) != len(names):
        raise ValueError(
            f"{entry.info.name} takes {len(names)} widths, got {len(widths)}: give one per layer in building order, "
            f"{', '.join(names[:4])}, ..., {names[-1]}"
        )
    named = {name: index(width) for name, width in zip(names, widths, strict=True)}
    for name, width in named.items():
        if width < 1:
            raise ValueError(f"the width of {name} is {width}: give at least 1")
    return named
