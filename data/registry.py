"""Data sets by name."""

import os
import shutil
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path

import torch
import torchvision
from torchvision.transforms.v2 import functional as TF

from data.augment import CropFlip
from data.folder import Listing, list_class_folders
from data.generated import SyntheticSize, digits, synthetic
from data.held_out import splits
from data.images import count_channels, load_small_images, smaller_side
from data.memory import Images, MemoryData
from data.names import FOLDER_SETS, TORCHVISION_SETS, dataset_names
from data.source import Data, DataInfo
from data.worker import ImageFolderData
from rr.errors import InputError

LARGEST_IN_MEMORY = 64  # pixels: folders of images up to this size are kept in memory
MAX_DEFAULT_WORKERS = 8
RESIZE_CHUNK = 4096  # images

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class _TorchvisionSet:
    """A data set that torchvision reads and downloads."""

    class_name: str  # in torchvision.datasets
    files: str  # what must lie in the data folder
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    pad: float  # part of the image size


_TORCHVISION_SETS = {
    # mean and std of the first ResRep implementation
    "cifar10": _TorchvisionSet("CIFAR10", "cifar-10-batches-py/", 32, (0.5,) * 3, (0.5,) * 3, flip=True, pad=4 / 32),
    "cifar100": _TorchvisionSet(
        "CIFAR100", "cifar-100-python/", 32, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), flip=True, pad=4 / 32
    ),
    "mnist": _TorchvisionSet("MNIST", "MNIST/raw/", 28, (0.1307,), (0.3081,), flip=False, pad=2 / 28),
    "fashion_mnist": _TorchvisionSet(
        "FashionMNIST", "FashionMNIST/raw/", 28, (0.2860,), (0.3530,), flip=True, pad=2 / 28
    ),
}
assert tuple(_TORCHVISION_SETS) == TORCHVISION_SETS


def load_data(
    name: str,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
    workers: int | None = None,
    synthetic_size: SyntheticSize | None = None,
    hold_out: int = 0,
) -> Data:
    """The data set called `name`.

    In a distributed run, call it on one process first: that one downloads, or writes the cache of a folder.

    Args:
        name: one of `dataset_names()`.
        data_dir: where its files are; `{name}_data` if not given. CIFAR and MNIST are downloaded to it when missing.
            `folder`, any images of your own, needs it: `train/` and `val/` (or `test/`) with a folder of images per
            class.
        image_size: side of the images, in pixels; the set's own if not given (ImageNet and folders of large images:
            224).
        workers: processes (threads for small images) that decode; if not given, as many as there are CPUs, at most 8.
        synthetic_size: how many images, classes and channels `synthetic` has.
        hold_out: training images, of all classes in proportion and always the same ones, that are left out of training
            and take the validation images' place: to choose settings by.

    Raises:
        InputError: with the fix in the message, for an unknown name and for missing, empty or broken files.
    """
    if name not in dataset_names():
        raise InputError(f"unknown data set '{name}'; choose from {', '.join(dataset_names())}")
    if image_size is not None and image_size < 1:
        raise InputError(f"image_size is {image_size}; it must be at least 1")
    if workers is None:
        workers = min(cores(), MAX_DEFAULT_WORKERS)
    if workers < 0:
        raise InputError(f"workers is {workers}; it must be 0 or more")
    if hold_out < 0:
        raise InputError(f"hold_out is {hold_out}; it must be 0 or more")
    if name == "folder" and data_dir is None:
        raise InputError(
            "the data set 'folder' needs data_dir: a folder with train/ and val/ (or test/), a folder per class"
        )
    root = Path(data_dir if data_dir is not None else f"{name}_data")
    if name in _TORCHVISION_SETS:
        return _load_torchvision(name, root, image_size, hold_out)
    if name in FOLDER_SETS:
        return _load_folder(name, root, image_size, workers, hold_out)
    return _load_generated(name, image_size or 32, synthetic_size or SyntheticSize(), hold_out)


def cores() -> int:
    """How many this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load_torchvision(name: str, root: Path, image_size: int | None, hold_out: int) -> Data:
    spec = _TORCHVISION_SETS[name]
    size = image_size or spec.image_size
    read = getattr(torchvision.datasets, spec.class_name)
    try:
        train = read(str(root), train=True, download=False)
    except RuntimeError:  # not there, or not complete
        train = _download(name, root)
    val = read(str(root), train=False, download=False)
    info = DataInfo(name, tuple(train.classes), len(spec.mean), size, spec.mean, spec.std, str(root))
    augment = CropFlip(round(size * spec.pad), spec.flip)
    return _in_memory(info, _resize(_to_images(train), size), _resize(_to_images(val), size), augment, hold_out)


def _in_memory(info: DataInfo, train: Images, val: Images, augment: CropFlip, hold_out: int) -> MemoryData:
    return MemoryData(_noting(info, val, hold_out), *splits(train, val, hold_out), augment)


def _noting(info: DataInfo, val: Images | Listing, hold_out: int) -> DataInfo:
    """The same, with the number of the set's own validation images where others take their place."""
    return replace(info, left_alone=len(val.labels)) if hold_out else info


def _download(name: str, root: Path) -> torchvision.datasets.VisionDataset:
    spec = _TORCHVISION_SETS[name]
    existed = root.exists()
    try:
        return getattr(torchvision.datasets, spec.class_name)(str(root), train=True, download=True)
    except (OSError, RuntimeError, HTTPException) as error:
        if not existed:  # or the link that the message asks for would end up inside it
            shutil.rmtree(root, ignore_errors=True)
        reason = " ".join(str(error).split())
        raise InputError(
            f"can't download {name} to '{root}' ({reason}); put {spec.files} of torchvision's {spec.class_name} there, "
            f"or link a folder that has it: `ln -s YOUR_PATH {root}`"
        ) from error


def _to_images(source: torchvision.datasets.VisionDataset) -> Images:
    images = torch.as_tensor(source.data)  # uint8 [N, H, W] or [N, H, W, C]
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return Images(images, torch.as_tensor(source.targets).long())


def _resize(split: Images, size: int) -> Images:
    if split.images.shape[2:] == (size, size):
        return split
    parts = [TF.resize(part, [size, size], antialias=True) for part in split.images.split(RESIZE_CHUNK)]
    return Images(torch.cat(parts), split.labels)


def _load_folder(name: str, root: Path, image_size: int | None, workers: int, hold_out: int) -> Data:
    folders = list_class_folders(root)
    why_this_size = ""
    if image_size is None:
        image_size = smaller_side(folders.train.files) if name == "folder" else 224
        if name == "folder" and image_size > LARGEST_IN_MEMORY:
            image_size, why_this_size = 224, f"as the first training image is over {LARGEST_IN_MEMORY} pixels"
        elif name == "folder":
            why_this_size = "the smaller side of the first training image"
    ignored, left_out = (
        (*folders.train.ignored, *folders.val.ignored),
        (*folders.train.left_out, *folders.val.left_out),
    )
    found = str(root), ignored, left_out, why_this_size
    if name == "folder" and image_size <= LARGEST_IN_MEMORY:
        images = load_small_images(folders, image_size, threads=max(workers, 1))
        train, val = (
            Images(torch.from_numpy(array), torch.from_numpy(listing.labels))
            for array, listing in zip(images, (folders.train, folders.val), strict=True)
        )
        channels = train.images.shape[1]
        info = DataInfo(name, folders.classes, channels, image_size, (0.5,) * channels, (0.5,) * channels, *found)
        return _in_memory(info, train, val, CropFlip(round(image_size * 4 / 32), flip=True), hold_out)
    channels = count_channels(folders.train.files + folders.val.files) if name == "folder" else 3
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,), (0.5,))
    info = DataInfo(name, folders.classes, channels, image_size, mean, std, *found)
    train, val = splits(folders.train, folders.val, hold_out)
    return ImageFolderData(_noting(info, folders.val, hold_out), replace(folders, train=train, val=val), workers)


def _load_generated(name: str, image_size: int, synthetic_size: SyntheticSize, hold_out: int) -> Data:
    if name == "digits":
        train, val = digits(image_size)
        classes, augment = 10, CropFlip(round(image_size * 2 / 32), flip=False)
    else:
        train, val = synthetic(synthetic_size, image_size)
        classes, augment = synthetic_size.classes, CropFlip(round(image_size * 4 / 32), flip=True)
    channels = train.images.shape[1]
    info = DataInfo(name, tuple(map(str, range(classes))), channels, image_size, (0.5,) * channels, (0.5,) * channels)
    return _in_memory(info, train, val, augment, hold_out)
