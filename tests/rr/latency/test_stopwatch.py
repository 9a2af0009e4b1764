"""Two networks timed against each other: what is run, and what is refused; times themselves are the machine's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rr import InputError, Timing
from rr.latency import rounds
from rr.latency.stopwatch import Stopwatch, image_shape


class Seen(nn.Module):
    """Notes the images that it is called with, and with how many threads."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: set[tuple[object, ...]] = set()
        self.scale = nn.Parameter(torch.ones(1))

    def __deepcopy__(self, memo: dict) -> Seen:
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls.add((tuple(images.shape), images.dtype, torch.get_num_threads()))
        return images * self.scale


def test_both_run_in_turn_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "BLOCK_S", 0)
    before, full, narrow = torch.get_num_threads(), Seen(), Seen()
    found = Stopwatch(Timing(batch=3, threads=2), (3, 4, 5))(full, narrow, 0.0)
    assert len(found) == rounds.LEAST_ROUNDS
    assert all(share > 0 for share in found)
    assert full.calls == narrow.calls == {((3, 3, 4, 5), torch.float32, 2)}
    assert torch.get_num_threads() == before


def test_what_cannot_be_timed_is_refused() -> None:
    with pytest.raises(InputError, match="no convolutions in bfloat16"):
        Stopwatch(Timing("onnxruntime", "bfloat16"), (3, 4, 5))
    images = torch.zeros(2, 3, 4, 5)
    assert image_shape(images) == image_shape((images,)) == image_shape({"x": images}) == (3, 4, 5)
    for other in ((images, images), torch.zeros(2, 3)):
        with pytest.raises(InputError, match="one tensor of images"):
            image_shape(other)
    for wrong, message in (({"runtime": "tvm"}, "choose from eager"), ({"batch": 0}, "batch must be at least 1")):
        with pytest.raises(InputError, match=message):
            Timing(**wrong)
