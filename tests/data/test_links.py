"""Folders of images from strangers: links, pipes, and files that aren't what they are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from data import load_data
from data.folder import list_class_folders
from data.images import BadImages, read_image
from rr.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes of four training images and one to validate."""
    for split, count in (("train", 4), ("val", 1)):
        for name in ("ant", "bee", "cow"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (12, 12)).save(folder / f"{number}.png")
    return tmp_path / "data"


def test_a_link_is_followed_once_and_never_into_another_class(root: Path, tmp_path: Path) -> None:
    more = tmp_path / "more" / "deep"
    more.mkdir(parents=True)
    Image.new("RGB", (12, 12)).save(more / "x.png")
    ant = root / "train" / "ant"
    (ant / "more").symlink_to(more.parent)
    before = list_class_folders(root).train
    assert (len(before.files), len(before.ignored)) == (13, 0)
    links = {"loop": ".", "again": ".", "split": root / "train", "bees": root / "train" / "bee", "twice": more.parent}
    for name, target in links.items():
        (ant / name).symlink_to(target)
    listing = list_class_folders(root).train
    assert listing.files == before.files
    assert listing.labels.tolist() == before.labels.tolist()
    left_out = {os.path.basename(path) for path in listing.left_out}
    assert {"loop", "again", "split", "bees"} < left_out
    assert len(left_out & {"more", "twice"}) == 1  # two ways into one folder: the first is taken


def test_two_classes_in_one_folder_are_refused(root: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (root / split / "dog").symlink_to(root / split / "ant")
    with pytest.raises(InputError, match="are one folder"):
        list_class_folders(root)


def test_what_is_no_regular_file_is_left_out(root: Path, tmp_path: Path) -> None:
    os.mkfifo(root / "train" / "ant" / "pipe.png")  # opening it would wait for ever
    (root / "train" / "ant" / "gone.png").symlink_to("nowhere.png")
    listing = list_class_folders(root).train
    assert len(listing.files) == 12
    assert {os.path.basename(path) for path in listing.left_out} == {"pipe.png", "gone.png"}


def test_it_is_said_why_a_file_is_ignored(root: Path) -> None:
    pipe, note = root / "train" / "ant" / "pipe.png", root / "train" / "bee" / "note.txt"
    os.mkfifo(pipe)
    note.write_text("bees")
    said = load_data("folder", root).describe()
    assert f"1 file ignored, no image suffix ({note})" in said
    assert f"1 file ignored, a link to what is elsewhere, or no regular file ({pipe})" in said


def test_a_file_is_what_its_contents_are(root: Path, tmp_path: Path) -> None:
    """PostScript under another name would be run by a program outside."""
    Image.new("RGB", (12, 12)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(root / "train" / "ant" / "0.png")
    with pytest.raises(BadImages, match=r"0\.png"):
        load_data("folder", root)


def test_a_small_file_of_a_huge_image_is_not_decoded(tmp_path):
    for name, side, mode in (("large", 8000, "1"), ("small", 80, "1")):  # a bit a pixel, and all of them equal
        Image.new(mode, (side, side)).save(tmp_path / f"{name}.png")
    with pytest.raises(BadImages, match=r"large\.png' \(8000 x 8000 pixels in a file of [\d,]+ bytes\)"):
        read_image(str(tmp_path / "large.png"), 3)
    assert read_image(str(tmp_path / "small.png"), 3).size == (80, 80)
