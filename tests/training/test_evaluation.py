"""Evaluation against the figures computed at once over all images."""

import math
import statistics
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from data import SyntheticSize, load_data
from rr.errors import InputError
from tests.training.tiny_run import DropoutNet, PlainNet, tiny_data
from training import Paired, World, check_fits, evaluate, evaluate_pair

ALONE = World(0, 0, 1, torch.device("cpu"))


@pytest.mark.parametrize("batch_size", [1, 8, 21, 64])
def test_equals_all_images_at_once(batch_size: int) -> None:
    torch.manual_seed(0)
    model, data = DropoutNet(), tiny_data()
    (batch,) = data.val_batches(batch_size=21, device="cpu")
    model.eval()
    logits = model(batch.images)
    model.train()

    found = evaluate(model, data, ALONE, batch_size=batch_size, channels_last=batch_size == 8)

    order = logits.argsort(1, descending=True)  # [21, 10]
    hits = order == batch.labels[:, None]
    assert found.loss == pytest.approx(F.cross_entropy(logits, batch.labels).item(), rel=1e-5)
    assert found.top1 == pytest.approx(100 * hits[:, 0].sum().item() / 21)
    assert found.top5 == pytest.approx(100 * hits[:, :5].sum().item() / 21)
    assert found.num == 21
    assert model.training


class Three(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(images.flatten(1))


def test_fewer_than_five_classes() -> None:
    data = load_data("synthetic", image_size=8, synthetic_size=SyntheticSize(train=4, val=7, classes=3))
    assert evaluate(Three(), data, ALONE, batch_size=4).top5 == 100


@pytest.mark.parametrize("batch_size", [4, 64])
def test_two_networks_on_the_same_images(batch_size: int) -> None:
    torch.manual_seed(0)
    first, second = Three(), Three().eval()
    data = load_data("synthetic", image_size=8, synthetic_size=SyntheticSize(train=4, val=50, classes=3))
    (batch,) = data.val_batches(batch_size=50, device="cpu")
    right = []
    for model in (first, second):
        predictions = model(batch.images).argmax(1)
        right.append([bool(hit) for hit in predictions == batch.labels])
    pairs = list(zip(*right, strict=True))
    assert len(set(pairs)) == 4  # both, one, the other, none

    *found, paired = evaluate_pair(first, second, data, ALONE, batch_size=batch_size)

    alone = [evaluate(model, data, ALONE, batch_size=batch_size) for model in (first, second)]
    assert found == alone
    assert first.training
    assert not second.training
    assert paired == Paired(pairs.count((True, False)), pairs.count((False, True)), 50)
    assert paired.points == pytest.approx(alone[1].top1 - alone[0].top1)
    changes = [after - before for before, after in pairs]  # per image: 1, 0 or -1
    assert paired.standard_error == pytest.approx(100 * statistics.pstdev(changes) / math.sqrt(50))


def test_a_model_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    data = tiny_data()
    check_fits(PlainNet(), data)
    with pytest.raises(ValueError, match="classes"):
        check_fits(Three(), data)
    with pytest.raises(ValueError, match=r"forward fails on these images .*8x8"):
        check_fits(nn.Conv2d(1, 10, 3), data)

    class Tuple(PlainNet):
        def forward(self, images: torch.Tensor) -> object:
            return (super().forward(images),)

    with pytest.raises(ValueError, match="gives tuple for one image"):
        check_fits(Tuple(), data)


def test_a_forward_that_fails_is_not_blamed_on_the_size_alone(tmp_path: Path) -> None:
    class Broken(PlainNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) @ torch.zeros(3, 3)

    with pytest.raises(ValueError, match=r"RuntimeError: .*--image-size, else correct its code"):
        check_fits(Broken(), tiny_data())


def test_what_fails_in_training_alone_is_refused_beforehand() -> None:
    class Fails(PlainNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if self.training:
                raise RuntimeError("too small for the auxiliary head")
            return super().forward(images)

    class GivesTwo(PlainNet):
        def forward(self, images: torch.Tensor) -> object:
            logits = super().forward(images)
            return (logits, logits) if self.training else logits

    data = tiny_data()
    for model, message in ((Fails(), "auxiliary head"), (GivesTwo(), "in training the network returns a tuple")):
        check_fits(model, data)
        with pytest.raises(ValueError, match=message):
            check_fits(model, data, trained_on=2)
        assert model.training


def test_a_batch_norm_that_sees_one_value_is_refused_before_a_run() -> None:
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 10, 1), nn.BatchNorm2d(10), nn.Flatten())
    check_fits(pooled, tiny_data(), trained_on=2)
    with pytest.raises(InputError, match="with 1 of these images at a time"):
        check_fits(pooled, tiny_data(), trained_on=1)


def test_a_check_for_training_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model, state = DropoutNet().eval(), torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    check_fits(model, tiny_data(), trained_on=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not model.training
