"""Folders of images, one sub-folder per class: which files there are. Nothing is opened here."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rr.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")


@dataclass(frozen=True)
class Listing:
    """The files of one split.

    Attributes:
        files: full paths of the images.
        labels: int64 [N], the class of each.
        ignored: full paths of the files that aren't images by their suffix.
    """

    files: tuple[str, ...]
    labels: np.ndarray
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassFolders:
    """A data folder with `train/` and `val/` (or `test/`), a sub-folder per class in each.

    Attributes:
        root: the data folder.
        classes: the names of the classes, in the order of their labels.
        train, val: the files of each split.
    """

    root: Path
    classes: tuple[str, ...]
    train: Listing
    val: Listing


def list_class_folders(root: Path) -> ClassFolders:
    """The images in `root`, classes in the order of their sorted folder names.

    Raises:
        InputError: if a folder is missing or empty, or the two splits don't have the same classes.
    """
    layout = "it must have train/ and val/ (or test/) with one folder of images per class"
    if not root.is_dir():
        raise InputError(f"no data folder '{root}'; link yours with `ln -s YOUR_PATH {root}`: {layout}")
    train_dir = root / "train"
    val_dir = next((root / name for name in ("val", "test") if (root / name).is_dir()), None)
    if not train_dir.is_dir():
        raise InputError(f"no folder '{train_dir}'; {layout}")
    if val_dir is None:
        raise InputError(f"neither '{root / 'val'}' nor '{root / 'test'}' is a folder; {layout}")
    train_classes, val_classes = (_class_names(split) for split in (train_dir, val_dir))
    for here, there, extra in (
        (train_dir, val_dir, sorted(set(train_classes) - set(val_classes))),
        (val_dir, train_dir, sorted(set(val_classes) - set(train_classes))),
    ):
        if extra:
            names = ", ".join(extra[:5]) + (f" and {len(extra) - 5} more" if len(extra) > 5 else "")
            raise InputError(f"'{here}' has classes that '{there}' lacks: {names}; give both the same class folders")
    return ClassFolders(root, train_classes, _list(train_dir, train_classes), _list(val_dir, val_classes))


def _class_names(split: Path) -> tuple[str, ...]:
    names = sorted(entry.name for entry in os.scandir(split) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise InputError(f"no class folders in '{split}'; it must have one folder of images per class")
    return tuple(names)


def _list(split: Path, classes: tuple[str, ...]) -> Listing:
    files: list[str] = []
    labels: list[int] = []
    ignored: list[str] = []
    for label, name in enumerate(classes):
        # Hidden files are left out: macOS writes a `._cat.jpg`, which isn't an image, beside each `cat.jpg`.
        inside = sorted(
            os.path.join(folder, file)
            for folder, _, names in os.walk(split / name, followlinks=True)
            for file in names
            if not file.startswith(".")
        )
        found = [file for file in inside if file.lower().endswith(SUFFIXES)]
        ignored += [file for file in inside if not file.lower().endswith(SUFFIXES)]
        if not found:
            raise InputError(
                f"no images in '{split / name}' (looked for {' '.join(SUFFIXES)}); add some or remove the folder"
            )
        files += found
        labels += [label] * len(found)
    return Listing(tuple(files), np.array(labels, dtype=np.int64), tuple(ignored))
