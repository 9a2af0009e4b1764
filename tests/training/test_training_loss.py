"""The loss of whatever a classifier returns in training, against torch's own and numbers worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torchvision.models import GoogLeNetOutputs, InceptionOutputs

from training.loss import logits_and_loss


def some_logits(seed: int) -> torch.Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))


LABELS = torch.tensor([0, 3, 1, 1, 2])


def test_plain_logits() -> None:
    logits, loss = logits_and_loss(some_logits(0), LABELS, 0.1)
    assert torch.equal(logits, some_logits(0))
    assert torch.equal(loss, F.cross_entropy(logits, LABELS, label_smoothing=0.1))


def test_auxiliary_classifiers_count_a_part() -> None:
    sure, unsure = torch.full((5, 4), -100.0), torch.zeros(5, 4)
    sure[range(5), LABELS] = 100.0  # loss 0; unsure: ln 4
    for output, expected in (
        (GoogLeNetOutputs(sure, unsure, unsure), 0.6),
        (GoogLeNetOutputs(unsure, sure, unsure), 1.3),
        (GoogLeNetOutputs(sure, None, None), 0.0),
        (InceptionOutputs(sure, unsure), 0.4),
        (InceptionOutputs(unsure, None), 1.0),
    ):
        logits, loss = logits_and_loss(output, LABELS)
        assert torch.equal(logits, output.logits)
        assert loss.item() == pytest.approx(expected * math.log(4))


def test_what_autocast_narrowed_is_widened() -> None:
    logits, loss = logits_and_loss(InceptionOutputs(some_logits(0).bfloat16(), some_logits(1).bfloat16()), LABELS)
    assert logits.dtype == loss.dtype == torch.float32
    assert logits_and_loss(some_logits(0).double(), LABELS)[1].dtype == torch.float64


def test_gradients_reach_every_classifier_of_googlenet() -> None:
    model = torchvision.models.googlenet(num_classes=4, init_weights=False).train()
    _, loss = logits_and_loss(model(torch.randn(2, 3, 64, 64)), LABELS[:2])
    loss.backward()
    for head in (model.fc, model.aux1.fc2, model.aux2.fc2):
        assert head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("output", [(some_logits(0), some_logits(1)), {"out": some_logits(0)}, None])
def test_other_outputs_are_refused(output: object) -> None:
    with pytest.raises(ValueError, match=f"returns a {type(output).__name__}: return the logits alone"):
        logits_and_loss(output, LABELS)
