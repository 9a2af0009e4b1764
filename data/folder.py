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
        ignored: full paths of what isn't an image by its suffix.
        left_out: full paths of what is no regular file, or a link to what is elsewhere.
    """

    files: tuple[str, ...]
    labels: np.ndarray
    ignored: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def part(self, chosen: np.ndarray) -> "Listing":
        """The files of the places [N] that are true, without what isn't taken."""
        return Listing(tuple(self.files[place] for place in chosen.nonzero()[0]), self.labels[chosen])


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
    places = [_identity(split / name) for name in classes]
    for name, place in zip(classes, places, strict=True):
        if (twin := classes[places.index(place)]) != name:
            raise InputError(f"'{split / name}' and '{split / twin}' are one folder: remove one of the two links")
    files: list[str] = []
    labels: list[int] = []
    ignored: list[str] = []
    left_out: list[str] = []
    for label, name in enumerate(classes):
        inside, elsewhere = _walk(split / name, set(places) | {_identity(split)})
        found = [file for file in inside if file.lower().endswith(SUFFIXES)]
        ignored += [file for file in inside if not file.lower().endswith(SUFFIXES)]
        left_out += elsewhere
        if not found:
            raise InputError(
                f"no images in '{split / name}' (looked for {' '.join(SUFFIXES)}); add some or remove the folder"
            )
        files += found
        labels += [label] * len(found)
    return Listing(tuple(files), np.array(labels, dtype=np.int64), tuple(ignored), tuple(left_out))


def _walk(top: Path, elsewhere: set[tuple[int, int]]) -> tuple[list[str], list[str]]:
    """The files below a class's folder, each folder visited once, sorted; and what is left out of it.

    Links are followed, but not to a folder that has been visited, nor back to the split or into another class: images
    would count twice, or under a wrong label, and a link into its own folder would never end. What isn't a regular file
    (a pipe, say) is left out: opening it could wait for ever.

    Args:
        top: the class's folder.
        elsewhere: the split's folder and those of all classes.
    """
    visited, files, left_out, to_visit = set(elsewhere), [], [], [str(top)]
    while to_visit:
        for entry in sorted(os.scandir(to_visit.pop()), key=lambda entry: entry.name):
            if entry.is_dir():
                place = _identity(entry.path)
                if place in visited:
                    left_out.append(entry.path)
                else:
                    visited.add(place)
                    to_visit.append(entry.path)
            # Hidden files don't count: macOS writes a `._cat.jpg`, which isn't an image, beside each `cat.jpg`.
            elif not entry.name.startswith("."):
                (files if entry.is_file() else left_out).append(entry.path)
    return sorted(files), left_out


def _identity(folder: str | Path) -> tuple[int, int]:
    """The same for all paths and links to one folder."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino
