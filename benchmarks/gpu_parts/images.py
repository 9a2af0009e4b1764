"""CIFAR-10 as a folder, wherever it comes from."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

from rr.errors import InputError


def image_folder(source: Path, folder: Path) -> Path:
    """A folder with train/ and test/ (or val/), made once of a tar file, or a link to the one that is given.

    Args:
        source: a folder, or a tar file of one.
        folder: where it is to be.

    Raises:
        InputError: if the tar file can't be read, or has no train/.
    """
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        folder.symlink_to(source.resolve(), target_is_directory=True)
        return folder
    beside = folder.with_name(f"{folder.name}.unpacked")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with tarfile.open(source) as archive:
            archive.extractall(beside, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{source} can't be unpacked ({error}): give a folder, or a tar file of it") from error
    top = next((path.parent for path in sorted(beside.rglob("train"), key=lambda path: len(path.parts))), None)
    if top is None:
        raise InputError(f"{source} has no folder train/: it must hold train/ and test/ with a folder for each class")
    os.replace(top, folder)
    shutil.rmtree(beside, ignore_errors=True)
    return folder
