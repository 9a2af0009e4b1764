"""Two runs image by image."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from base_model import build_model
from benchmarks.studies.pairs import paired_runs
from rr.weights import save_hdf5
from training import Paired


def says(label: int) -> dict[str, torch.Tensor]:
    """The weights of a network that takes everything for this class of two."""
    weights = build_model("src20", num_classes=2).state_dict()
    weights["linear.bias"] = 1000 * torch.eye(2)[label]
    return weights


@pytest.mark.slow
def test_pairs_are_of_the_networks_that_the_runs_end_with(place: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    for split in ("train", "test"):
        shutil.copytree(place / "images" / split, images / split)
    for image in sorted((images / "test" / "dog").iterdir())[2:]:
        image.unlink()  # 6 cats and 2 dogs
    folders = {name: tmp_path / name for name in ("cat", "dog")}
    save_hdf5(folders["cat"] / "finish.hdf5", says(0), {})
    save_hdf5(folders["dog"] / "finish.hdf5", says(0), {})
    save_hdf5(folders["dog"] / "finish_converted.hdf5", says(1), {})
    both = folders["cat"], folders["dog"]
    assert paired_runs("src20", "folder", images, [both, both[::-1]]) == [Paired(6, 2, 8), Paired(2, 6, 8)]
    assert paired_runs("src20", "folder", tmp_path / "no images", []) == []
