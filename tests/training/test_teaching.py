"""What modules return, of a network and of its teacher: kept in a pass alone, compared on the teacher's own scale."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rr import InputError
from training.teaching import KeptOutputs, Lesson, Stages, outputs_error


def network(width: int = 4) -> nn.Sequential:
    torch.manual_seed(width)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 2, 3))


IMAGES = torch.randn(5, 3, 9, 9, generator=torch.Generator().manual_seed(0))


def test_outputs_are_kept_within_the_context_alone_and_nothing_stays_on_the_network() -> None:
    model = network()
    kept = KeptOutputs(model, ("2", "0"))
    for _ in range(2):
        with kept:
            output = model(IMAGES)
        first, last = kept.found  # in the order of the calls
        assert torch.equal(first, model[0](IMAGES))
        assert last is output
    assert not any(module._forward_hooks for module in model.modules())
    model(IMAGES)
    assert len(kept.found) == 2


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_gradients() -> None:
    model, teacher = network(), network().requires_grad_(False)
    teacher[0].weight.mul_(1.5)
    stages = Stages(KeptOutputs(model, ("0", "2")), KeptOutputs(teacher, ("0", "2")))
    found = []
    for called in (torch.compile(model, backend="aot_eager"),) * 2 + (model,):
        model.zero_grad()
        with stages.student:
            called(IMAGES)
        with stages.teacher:
            teacher(IMAGES)
        stages.error().backward()
        found.append(model[0].weight.grad.clone())
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_a_difference_counts_on_the_scale_of_the_teachers_channel() -> None:
    taught = torch.randn(50, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    own = taught + torch.tensor([0.5, 0.5, -0.5], dtype=torch.float64)[:, None, None]
    expected = torch.stack([0.25 / taught[:, channel].var(correction=0) for channel in range(3)]).mean()
    torch.testing.assert_close(outputs_error(own, taught), expected)
    scale = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(outputs_error(own * scale, taught * scale), expected)


def test_a_channel_that_does_not_vary_is_no_reason_for_infinity() -> None:
    taught = torch.randn(50, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    taught[:, 1] = 3.0
    assert 0 < outputs_error(taught + 0.1, taught) < 100
    assert outputs_error(torch.zeros(2, 3), torch.zeros(2, 3)) == 0
    assert outputs_error(torch.ones(2, 3).bfloat16(), torch.zeros(2, 3)).dtype == torch.float32


def test_unknown_modules_and_outputs_of_other_widths_are_named() -> None:
    with pytest.raises(InputError, match=r"no module 'stage1'; it has 0, 1, 2"):
        KeptOutputs(network(), ("stage1",))
    narrow, wide = network(3), network(4)
    stages = Stages(KeptOutputs(narrow, ("0",)), KeptOutputs(wide, ("0",)))
    with stages.student:
        narrow(IMAGES)
    with stages.teacher:
        wide(IMAGES)
    with pytest.raises(InputError, match=r"\(5, 3, 7, 7\) in the network and \(5, 4, 7, 7\) in its teacher"):
        stages.error()


def test_a_teacher_that_has_left_adds_nothing() -> None:
    loss = torch.ones(())
    assert Lesson(None).loss(loss, torch.zeros(2, 3), IMAGES, None, None) is loss
