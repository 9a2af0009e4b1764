"""A run's network and data, each made to fit the other."""

from collections.abc import Callable
from functools import partial

from torch import nn

from base_model import build_any, model_info, model_names
from data import Data, load_data
from rr.errors import InputError


def data_for(
    arch: str,
    dataset: str | None,
    data_dir: str | None = None,
    image_size: int | None = None,
    workers: int | None = None,
    hold_out: int = 0,
) -> Data:
    """The data set for a network.

    Args:
        arch: the network's name.
        dataset: name of the data set; None for the usual one, which only our own networks have.
        data_dir: where its files are; None for the usual folder.
        image_size: side of the images, in pixels; None for our network's own, or for the data's own with a network from
            anywhere: CIFAR's 32, say, or 224 for ImageNet and folders of large images.
        workers, hold_out: as in `load_data`.

    Raises:
        InputError: for what is missing or unknown.
    """
    info = model_info(arch) if arch in model_names() else None
    if dataset is None and info is None:
        raise InputError(f"{arch} has no usual data set: name one with --dataset")
    size = image_size or (info.image_size if info else None)
    return load_data(dataset or info.dataset, data_dir, size, workers, hold_out=hold_out)


def network_builder(arch: str, data: Data) -> Callable[[], nn.Module]:
    """`build_any` for this network and this data's classes, channels and image size."""
    return partial(
        build_any, arch, num_classes=data.num_classes, in_channels=data.in_channels, image_size=data.image_size
    )


def file_attributes(arch: str, data: Data) -> dict[str, str | int]:
    """What a weight file says about its network: as much as is needed to build it again."""
    return {
        "arch": arch,
        "dataset": data.name,
        "num_classes": data.num_classes,
        "in_channels": data.in_channels,
        "image_size": data.image_size,
    }
