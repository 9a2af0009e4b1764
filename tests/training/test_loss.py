"""The loss of whatever a classifier returns in training, against torch's own and numbers worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torchvision.models import GoogLeNetOutputs, InceptionOutputs

from training.loss import distilled, logits_and_loss


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


# Distillation -----------------------------------------------------------------------------------------------


def gradient(student: torch.Tensor, teacher: torch.Tensor, share: float, temperature: float) -> torch.Tensor:
    """Of the distilled loss in the student's logits [n, classes]."""
    student = student.detach().requires_grad_()
    logits, loss = logits_and_loss(student, LABELS)
    distilled(loss, logits, teacher, share, temperature).backward()
    return student.grad


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_distilled_loss_and_its_gradient_are_those_written_out(share: float, temperature: float) -> None:
    """d/dz of the mean of T^2 KL(p | q) is T (q - p) / n, of the cross-entropy (softmax(z) - one-hot) / n."""
    student, teacher = 5 * some_logits(0).double(), 5 * some_logits(1).double()
    p, q = ((scores / temperature).exp() for scores in (teacher, student))
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    plain = student.exp() / student.exp().sum(1, keepdim=True)
    one_hot = torch.zeros(5, 4, dtype=torch.float64)
    one_hot[range(5), LABELS] = 1
    loss = (1 - share) * -(one_hot * plain.log()).sum() / 5
    loss = loss + share * temperature**2 * (p * (p / q).log()).sum() / 5
    expected = ((1 - share) * (plain - one_hot) + share * temperature * (q - p)) / 5

    found = distilled(logits_and_loss(student, LABELS)[1], student, teacher, share, temperature)
    assert found.item() == pytest.approx(loss.item(), rel=1e-12)
    assert torch.allclose(gradient(student, teacher, share, temperature), expected, rtol=0, atol=1e-14)
    in_float32 = gradient(student.float(), teacher.float(), share, temperature)
    assert torch.allclose(in_float32.double(), expected, rtol=0, atol=2e-6)


def test_a_student_like_its_teacher_has_nothing_to_learn_from_it() -> None:
    scores = 5 * some_logits(0).double()
    assert gradient(scores, scores, 1.0, 4.0).abs().max() < 1e-15
    assert gradient(scores, scores, 0.5, 4.0).abs().max() > 0.01


def test_no_share_is_the_old_loss_to_the_last_bit() -> None:
    logits, loss = logits_and_loss(some_logits(0), LABELS, 0.1)
    assert torch.equal(distilled(loss, logits, some_logits(1), 0.0, 4.0), loss)


def test_a_teacher_under_autocast_is_widened() -> None:
    logits, loss = logits_and_loss(some_logits(0).bfloat16(), LABELS)
    found = distilled(loss, logits, some_logits(1).bfloat16(), 0.5, 4.0)
    assert found.dtype == torch.float32
    exact = distilled(loss.double(), logits.double(), some_logits(1).bfloat16().double(), 0.5, 4.0)
    assert found.item() == pytest.approx(exact.item(), rel=1e-6)
