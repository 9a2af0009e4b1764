"""CIFAR-10 for a machine that has nothing."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from benchmarks.gpu_parts.images import image_folder
from rr.errors import InputError


def test_images_come_from_a_folder_or_a_tar_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for split in ("train", "test"):
        (source / split / "cat").mkdir(parents=True)
        (source / split / "cat" / "1.jpg").write_text(split)
    linked = image_folder(source, tmp_path / "linked" / "images")
    assert (linked / "train" / "cat" / "1.jpg").read_text() == "train"
    with tarfile.open(tmp_path / "images.tar.gz", "w:gz") as archive:
        archive.add(source, "some/name")
    unpacked = image_folder(tmp_path / "images.tar.gz", tmp_path / "unpacked" / "images")
    assert (unpacked / "test" / "cat" / "1.jpg").read_text() == "test"
    assert image_folder(tmp_path / "gone.tar", unpacked) == unpacked  # made once
    with tarfile.open(tmp_path / "other.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("readme"), io.BytesIO())
    with pytest.raises(InputError, match="no folder train/"):
        image_folder(tmp_path / "other.tar", tmp_path / "other")
    (tmp_path / "torn.tar").write_text("torn")
    with pytest.raises(InputError, match="can't be unpacked"):
        image_folder(tmp_path / "torn.tar", tmp_path / "torn")
