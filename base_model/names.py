"""The names of networks, and what each of ours is usually trained on. Nothing here needs torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rr.errors import InputError

WHERE_ELSE = "torchvision/NAME, timm/NAME or FILE.py:FUNCTION"


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


CIFAR_DEPTHS = (8, 20, 32, 44, 56, 110, 164)
IMAGENET_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # by depth: blocks of each stage


def _infos() -> dict[str, ModelInfo]:
    def cifar(name: str) -> ModelInfo:
        return ModelInfo(name, "cifar10", 32, 10, 3)

    def imagenet(name: str) -> ModelInfo:
        return ModelInfo(name, "imagenet", 224, 1000, 3)

    infos = [cifar(f"src{depth}") for depth in CIFAR_DEPTHS] + [imagenet(f"sres{depth}") for depth in IMAGENET_BLOCKS]
    infos += [cifar("vc"), imagenet("smi1"), cifar("smi1_cifar"), ModelInfo("lenet5bn", "mnist", 28, 10, 1)]
    return {info.name: info for info in infos}


_INFOS = _infos()


def model_names() -> list[str]:
    """The names that `build_model` takes."""
    return list(_INFOS)


def model_info(name: str) -> ModelInfo:
    """What the network `name` is usually trained on.

    Raises:
        InputError: for an unknown name.
    """
    if name not in _INFOS:
        raise InputError(f"no model is called {name!r}: choose one of {', '.join(_INFOS)}")
    return _INFOS[name]


def is_file(name: str) -> bool:
    """Whether a network's name is `FILE.py:FUNCTION`: building it runs that file."""
    path, colon, function = name.rpartition(":")
    return bool(colon and function) and path.endswith(".py")


def check_name(name: str) -> None:
    """Check that `name` has one of the forms that `build_any` takes; whether there is such a network shows later.

    Raises:
        InputError: if it has none of them.
    """
    source, _, rest = name.partition("/")
    if name not in model_names() and not is_file(name) and not (rest and source in ("torchvision", "timm")):
        raise InputError(f"no network is called {name!r}: choose one of {', '.join(model_names())}, {WHERE_ELSE}")


def folder_name(name: str) -> str:
    """A network's name as a folder name: `torchvision-mobilenet_v2`, `my_models-build` for `some/my_models.py:build`.

    Our own networks' names stay as they are.
    """
    if is_file(name):
        path, _, function = name.rpartition(":")
        name = f"{Path(path).stem}-{function}"
    return re.sub(r"[^\w.-]+", "-", name)
