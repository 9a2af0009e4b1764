"""The Fisher matrix in a layer's outputs, against gradients of each image and place by themselves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr.graph import ChannelGraph
from rr.refit import fisher
from rr.refit.feed import Feed
from rr.refit.rows import reader_of
from rr.refit.watch import Seen


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize("most", [2048, 3])
def test_the_mean_of_what_each_image_says(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fisher, "MOST_OUTPUTS", most)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(20, 4)).eval()
    images, labels = torch.randn(6, 3, 4, 4), torch.randint(0, 4, (6,))
    of = reader_of(ChannelGraph(model, images).layers["2"], model[2])
    feed = Feed([(images[:4], labels[:4]), (images[4:], labels[4:])], loss_fn)
    rows: list[Tensor] = []
    found = fisher.capture_with_gradients(
        model, [of], 100, feed, torch.Generator(), lambda _, __, seen: rows.append(seen.rows)
    )["2"]
    assert all(parameter.grad is None for parameter in model.parameters())

    expand, reduce = torch.zeros(5, 5), torch.zeros(5, 5)
    for image, label in zip(images, labels, strict=True):
        outputs = model[:3](image[None]).detach().requires_grad_(True)
        F.cross_entropy(model[3:](outputs), label[None]).backward()
        each = outputs.grad[0].flatten(1).T  # [places, D]
        expand += each.T @ each / 6
        reduce += torch.outer(each.sum(0), each.sum(0)) / 6
    expected = fisher.SAME_EVERYWHERE * reduce + (1 - fisher.SAME_EVERYWHERE) * expand
    off = 0.0 if most == 3 else 1 - fisher.SHRINKAGE
    expected = off * expected + (1 - off) * torch.diag(expected.diagonal())
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-7)
    assert [len(each) for each in rows] == [4 * 4, 2 * 4]  # all places


def test_a_layer_of_sequences_has_its_channels_last() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 6), nn.Flatten(), nn.Linear(30, 3)).eval()
    images = torch.randn(2, 5, 4)
    of = reader_of(ChannelGraph(model, images).layers["1"], model[1])
    feed = Feed([(images, torch.tensor([0, 2]))], loss_fn)
    assert fisher.capture_with_gradients(model, [of], 3, feed, torch.Generator(), ignore)["1"].shape == (6, 6)


def ignore(*_: Seen) -> None:
    pass
