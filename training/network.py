"""A run's network and data: whatever both are, each is asked for what fits the other."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from base_model import WHERE_ELSE, build_any, check_name, model_info, model_names
from data import Data, load_data
from training.options import read_ahead


def read_network(arguments: Sequence[str]) -> tuple[str, str | None]:
    """The network (-a) and the data set (--dataset, None where not given), which decide what the options' defaults are.

    Raises ValueError where the network is missing or has no name that `build_any` takes; a plain `--help` gets our
    first one.
    """
    arch, dataset = read_ahead(arguments, "-a", "--arch"), read_ahead(arguments, "--dataset")
    if arch is None:
        if not {"-h", "--help"} & set(arguments):
            raise ValueError(f"-a is required: {', '.join(model_names())}, {WHERE_ELSE}")
        arch = model_names()[0]
    check_name(arch)
    return arch, dataset


def data_for(
    arch: str,
    dataset: str | None,
    data_dir: str | None = None,
    image_size: int | None = None,
    workers: int | None = None,
) -> Data:
    """The data set at the image size that is asked for, else at the network's own.

    A network from anywhere takes the data's own size: CIFAR's 32, say, or 224 for ImageNet and folders of large
    images. Our own networks know their usual data set. Raises ValueError for what is missing or unknown.
    """
    info = model_info(arch) if arch in model_names() else None
    if dataset is None and info is None:
        raise ValueError(f"{arch} has no usual data set: name one with --dataset")
    size = image_size or (info.image_size if info else None)
    return load_data(dataset or info.dataset, data_dir, size, workers)


def network_builder(arch: str, data: Data) -> Callable[[], nn.Module]:
    """`build_any` for this network and this data's classes, channels and image size."""
    return partial(
        build_any, arch, num_classes=data.num_classes, in_channels=data.in_channels, image_size=data.image_size
    )
