"""The closed-form learning rates against torch's own schedulers, which step through theirs."""

import pytest
import torch
from torch.optim import lr_scheduler

from training.recipe import Recipe
from training.schedule import lr_factor

STEPS_PER_EPOCH, EPOCHS = 5, 12


def recipe(**changes: object) -> Recipe:
    return Recipe(arch="any", dataset="any", lr=0.4, epochs=EPOCHS, **changes)


def rates(make: object, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler = make(optimizer)
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


def ours(settings: Recipe) -> list[float]:
    return rates(lambda o: lr_scheduler.LambdaLR(o, lr_factor(settings, STEPS_PER_EPOCH)), STEPS_PER_EPOCH * EPOCHS)


TOTAL = STEPS_PER_EPOCH * EPOCHS
CASES = {
    "cosine": (dict(schedule="cosine"), lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL)),
    "cosine to a minimum": (
        dict(schedule="cosine", min_lr=0.1),
        lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=0.1),
    ),
    "steps": (
        dict(schedule="step", milestones=(3, 7), gamma=0.2),
        lambda o: lr_scheduler.MultiStepLR(o, [15, 35], gamma=0.2),
    ),
    "linear": (
        dict(schedule="linear", min_lr=0.04),
        lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=TOTAL),
    ),
    "linear warm-up, cosine": (
        dict(schedule="cosine", warmup_epochs=2, warmup_factor=0.25),
        lambda o: lr_scheduler.SequentialLR(
            o,
            [
                lr_scheduler.LinearLR(o, 0.25, 1.0, total_iters=10),
                lr_scheduler.CosineAnnealingLR(o, TOTAL - 10),
            ],
            [10],
        ),
    ),
    "warm-up from nothing": (
        dict(schedule="step", milestones=(6,), warmup_epochs=2, warmup_factor=0.0),
        lambda o: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LambdaLR(o, lambda step: min(step / 10, 1.0)), lr_scheduler.MultiStepLR(o, [20])],
            [10],
        ),
    ),
    "constant warm-up, steps": (
        dict(schedule="step", milestones=(6,), warmup="constant", warmup_epochs=2, warmup_factor=0.25),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.ConstantLR(o, 0.25, total_iters=10), lr_scheduler.MultiStepLR(o, [20])], [10]
        ),
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_equals_torchs_scheduler(name: str) -> None:
    settings, reference = CASES[name]
    assert ours(recipe(**settings)) == pytest.approx(rates(reference, TOTAL), rel=1e-9, abs=1e-12)


def test_max_steps_leaves_the_schedule_as_it_is() -> None:
    assert ours(recipe(max_steps=7)) == ours(recipe())


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_all_groups_fall_to_the_same_minimum(schedule: str) -> None:
    """As with torch's CosineAnnealingLR: biases, which learn at twice the rate, end at the same one."""
    settings = recipe(schedule=schedule, min_lr=0.1)
    for lr in (0.4, 0.8, 0.1, 0.05):
        factor = lr_factor(settings, STEPS_PER_EPOCH, lr)
        assert lr * factor(0) == pytest.approx(lr)
        assert lr * factor(TOTAL) == pytest.approx(min(lr, 0.1))


def test_falls_to_the_minimum_and_stays() -> None:
    factor = lr_factor(recipe(schedule="cosine", min_lr=0.1), STEPS_PER_EPOCH)
    assert factor(TOTAL) == pytest.approx(0.25)
    assert factor(TOTAL + 3) == factor(TOTAL)
