"""A short loss curve guards the training loop: the same seed gives the same losses.

Where a change is meant to alter the computation (order of the data, augmentation, initial weights, optimiser), write
the curve anew, and say why in the commit:

    PYTHONPATH=. python tests/training/test_golden_loss.py
"""

import json
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

from base_model import build_model
from data import load_data
from rr import param_groups
from training import Evaluation, Recipe, RunLog, init_world, to_plain, train

GOLDEN = Path(__file__).with_name("golden_loss.json")


class Float64(nn.Module):
    """In float32, other processors' rounding grows to 1% within five steps; in float64 it stays far below 1e-6."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.double()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images.double())


class CurveLog(RunLog):
    """Keeps the losses that the others write to TensorBoard."""

    def curves(self, kind: str, evaluation: Evaluation, step: int) -> None:
        self.losses = [*getattr(self, "losses", []), (kind, step, evaluation.loss)]


def losses(folder: Path) -> list[list]:
    """Loss of 12 training steps of ResNet-20 on digits, and of the evaluations around them: [kind, step, loss]."""
    recipe = Recipe(
        arch="src20",
        dataset="digits",
        output_dir=str(folder),
        device="cpu",
        epochs=1,
        batch_size=32,
        max_steps=12,
        log_interval=1,
        lr=0.02,
        seed=1,
    )
    torch.manual_seed(recipe.seed)
    model = Float64(build_model("src20", in_channels=1))
    groups = {"lr": recipe.lr, "momentum": recipe.momentum, "weight_decay": recipe.weight_decay}
    with init_world("cpu") as world, CurveLog(folder, world, to_plain(recipe)) as log:
        train(
            recipe,
            model,
            load_data("digits", image_size=16),
            world,
            log,
            param_groups=lambda network: param_groups(network, **groups),
            write_weights=lambda path, network: None,
        )
    return [list(point) for point in log.losses]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_the_curve_is_the_golden_one(tmp_path: Path) -> None:
    found, golden = losses(tmp_path), json.loads(GOLDEN.read_text())
    assert [point[:2] for point in found] == [point[:2] for point in golden]
    assert [point[2] for point in found] == pytest.approx([point[2] for point in golden], rel=1e-6)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(losses(Path(folder))).replace("], [", "],\n [") + "\n")
