"""Layers as matrices: rows times matrix is what the layer gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rr.graph import ChannelGraph, ExampleInputs
from rr.refit.capture import capture
from rr.refit.feed import Feed
from rr.refit.rows import Reader, at_places, matrix_of, places_of, put_matrix, reader_of

LAYERS = {
    "3x3": (nn.Conv2d(4, 6, 3, padding=1), (4, 7, 5)),
    "strided, dilated": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(2, 0), dilation=(2, 1)), (4, 9, 8)),
    "same": (nn.Conv2d(4, 6, (4, 3), padding="same"), (4, 7, 5)),
    "reflecting": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (4, 7, 5)),
    "1d": (nn.Conv1d(4, 6, 3, padding=2, bias=False), (4, 9)),
    "3d": (nn.Conv3d(4, 6, 3, stride=2), (4, 5, 6, 7)),
    "linear": (nn.Linear(4, 6), (4,)),
}


def reader(layer: nn.Module, shape: tuple[int, ...]) -> tuple[nn.Module, Reader]:
    """A layer between two others, as a network reads it."""
    torch.manual_seed(0)
    first = nn.Linear(4, 4) if isinstance(layer, nn.Linear) else type(layer)(4, 4, 1)
    model = nn.Sequential(first, layer).eval()
    return model, reader_of(ChannelGraph(model, torch.randn(2, *shape)).layers["1"], layer)


def rows_of(model: nn.Module, of: Reader, images: Tensor, most: int = 10**6) -> Tensor:
    """What the layer reads."""
    found = []
    feed = Feed([ExampleInputs.of(images)])
    capture(model, [of], most, feed, lambda _, __, seen: found.append(seen.rows))
    return found[0]


@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_matrix_are_the_outputs(name: str) -> None:
    layer, shape = LAYERS[name]
    model, of = reader(layer, shape)
    images = torch.randn(3, *shape)
    output = model(images)
    for most in (10**6, 5):
        places = places_of("1", 0, tuple(output.shape[2:]), most)
        rows = rows_of(model, of, images, most)
        found = rows @ matrix_of(of, layer).float() + (0 if layer.bias is None else layer.bias)
        torch.testing.assert_close(found, at_places(output, places), rtol=1e-4, atol=1e-5)
        assert len(rows) == 3 * (len(places[0]) if places else 1)
    assert of.units.tolist() == [unit for unit in of.layer.in_units for _ in range(of.taps)]


def test_pixels_times_matrix_make_a_transposed_convolutions_output() -> None:
    layer = nn.ConvTranspose2d(4, 6, 2, stride=2, bias=False)  # no two pixels meet
    model, of = reader(layer, (4, 3, 3))
    images = torch.randn(2, 4, 3, 3)
    found = rows_of(model, of, images) @ matrix_of(of, layer).float()
    expected = model(images).unfold(2, 2, 2).unfold(3, 2, 2)  # [N, 6, 3, 3, 2, 2]
    torch.testing.assert_close(found.view(2, 9, 6, 4), expected.flatten(4).flatten(2, 3).transpose(1, 2))


def test_a_linear_layer_reads_sequences() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 6)).eval()
    images = torch.randn(3, 5, 4)
    of = reader_of(ChannelGraph(model, images).layers["1"], model[1])
    rows = rows_of(model, of, images)
    found = rows @ matrix_of(of, model[1]).float() + model[1].bias
    torch.testing.assert_close(found.view(3, 5, 6), model(images))


@pytest.mark.parametrize("norm", [False, True])
def test_another_matrix_and_a_shift(norm: bool) -> None:
    torch.manual_seed(0)
    conv, bn = nn.Conv2d(4, 6, 3, bias=not norm), nn.BatchNorm2d(6)
    bn.running_var.uniform_(0.5, 2)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), conv, *([bn] if norm else [])).eval()
    of = reader_of(ChannelGraph(model, torch.randn(2, 3, 5, 5)).layers["1"], conv)
    images, matrix, shift = torch.randn(2, 3, 5, 5), torch.randn(36, 6).double(), torch.randn(6).double()
    rows = rows_of(model, of, images)
    bias = 0 if conv.bias is None else conv.bias.detach().clone()
    put_matrix(of, conv, bn if norm else None, matrix, shift)
    expected = rows @ matrix.float() + bias + shift.float()
    before = nn.Sequential(*list(model)[:2])(images) if not norm else None
    if norm:
        bn.running_mean.add_(shift.float())
        expected = (expected - shift.float() - bn.running_mean + shift.float()) * torch.rsqrt(bn.running_var + bn.eps)
        bn.running_mean.sub_(shift.float())
        before = model(images)
    torch.testing.assert_close(before.movedim(1, -1).reshape(-1, 6), expected, rtol=1e-4, atol=1e-5)


def test_places_are_the_same_each_time_and_others_in_another_batch() -> None:
    first, again, other = (places_of("a", batch, (9, 9), 5) for batch in (0, 0, 1))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert any(not torch.equal(one, two) for one, two in zip(first, other, strict=True))
    assert len(set(zip(*(index.tolist() for index in first), strict=True))) == 5
