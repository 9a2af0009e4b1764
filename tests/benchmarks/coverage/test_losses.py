"""Each loss is finite, has gradients for what it is of, and is smaller where the outputs are better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.coverage import losses

SHAPES: dict[Callable[[Any], Tensor], dict[str, tuple[int, ...]]] = {
    losses.classes: {"out": (2, 4)},
    losses.every_head: {"label": (2, 4), "pixels": (2, 3, 5, 5)},
    losses.regression: {"image": (2, 3, 5, 5), "other": (2, 1)},
    losses.detection: {"class_scores": (2, 60), "boxes": (2, 4, 3)},
    losses.endpoint_error: {"first": (2, 2, 5, 5), "second": (2, 2, 5, 5)},
    losses.sequence: {"logits": (2, 9, 6)},
    losses.contrastive: {"a": (2, 8), "b": (2, 8)},
    losses.real_or_not: {"out": (2, 1, 1, 1)},
}


@pytest.mark.parametrize("loss", SHAPES, ids=lambda loss: loss.__name__)
def test_steps_along_the_gradient_make_it_smaller(loss: Callable[[Any], Tensor]) -> None:
    torch.manual_seed(0)
    outputs = {name: torch.randn(shape, requires_grad=True) for name, shape in SHAPES[loss].items()}
    before = loss(outputs)
    assert before.dim() == 0
    assert before.isfinite()
    before.backward()
    with torch.no_grad():
        moved = {name: output - 0.01 * output.grad for name, output in outputs.items()}
    assert all(bool((output.grad != 0).any()) for output in outputs.values())
    assert loss({name: output.requires_grad_() for name, output in moved.items()}) < before


def test_a_classifier_with_auxiliary_outputs_and_one_of_two_classes() -> None:
    logits, auxiliary = torch.randn(2, 4), torch.randn(2, 4)
    assert losses.classes((logits, auxiliary)) == losses.classes(logits)
    assert losses.classes(torch.randn(2, 1, 6, 6)).isfinite()


def test_detection_tells_scores_from_boxes_by_their_names() -> None:
    right = torch.full((1, 100), -20.0, requires_grad=True)
    with torch.no_grad():
        right[0, ::50] = 20.0
    assert losses.detection({"levels": [{"cls": right}]}) < 1e-6
    assert losses.detection({"levels": [{"box": right}]}) > 1
