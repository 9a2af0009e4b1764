"""The loop against a plain one written out with torch, and what it writes, evaluates and refuses."""

import json
import logging
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rr import Share, param_groups
from tests.training import tiny_run
from tests.training.operations import Counted
from tests.training.tiny_run import PlainNet, StepSum, run, tiny_data, tiny_recipe, tiny_teacher
from training import Callback, NonFiniteLoss, TrainState, checkpoint_files, loop

pytestmark = pytest.mark.usefixtures("one_thread")


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def largest_difference(a: torch.nn.Module, b: torch.nn.Module) -> float:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)


@pytest.mark.parametrize(
    ("distill", "until", "taught", "outputs"),
    [(0.0, 1.0, 0, 0), (0.7, 1.0, 14, 0), (0.7, 0.6, 8, 0), (0.7, 0.6, 8, 0.01)],
)
def test_takes_the_steps_of_a_plain_loop(
    tmp_path: Path, distill: float, until: float, taught: int, outputs: float
) -> None:
    """The teacher has its part in the first `taught` of 14 steps; its convolution's outputs, less and less of one."""
    settings = {"label_smoothing": 0.1, "nesterov": True, "temperature": 3.0}
    settings |= {"distill": distill, "distill_until": Share(until)}
    if outputs:
        settings |= {"distill_outputs": ("conv",), "distill_outputs_weight": outputs}
    model, result = run(tiny_recipe(tmp_path, epochs=2, **settings))

    teacher = tiny_teacher("plain").requires_grad_(False)
    torch.manual_seed(0)
    reference, data, losses = PlainNet(), tiny_data(), []
    weights = [p for name, p in reference.named_parameters() if name.endswith("weight")]
    biases = [p for name, p in reference.named_parameters() if name.endswith("bias")]
    groups = [{"params": weights, "weight_decay": 1e-4}, {"params": biases, "lr": 0.2}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 14)
    for epoch in range(2):
        for batch in data.train_batches(epoch, batch_size=8, seed=0, device="cpu"):
            scores = reference(batch.images)
            loss = F.cross_entropy(scores, batch.labels, label_smoothing=0.1)
            if scheduler.last_epoch < taught:
                loss = (1 - distill) * loss
                soft = F.softmax(teacher(batch.images) / 3, dim=1)
                loss = loss + distill * 9 * (soft * (soft.log() - F.log_softmax(scores / 3, 1))).sum(1).mean()
                own, theirs = (network.conv(batch.images.double()) for network in (reference, teacher))
                deviation = theirs.transpose(0, 1).flatten(1).std(1, correction=0)[:, None, None]
                left = 1 - scheduler.last_epoch / taught
                loss = loss + outputs * left * (((own - theirs) / deviation) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses += [loss.item()] * len(batch.labels) if epoch == 1 else []

    assert largest_difference(model, reference) < 1e-12
    assert result.train is not None
    assert result.train.loss == pytest.approx(sum(losses) / 50, abs=1e-12)
    assert (result.steps, result.epochs, result.train.num, result.val.num) == (14, 2, 50, 21)


@pytest.mark.slow
@pytest.mark.parametrize(("accumulate", "distill"), [(2, 0.0), (3, 0.5), (8, 0.0)])
def test_accumulation_equals_the_whole_batch(tmp_path: Path, accumulate: int, distill: float) -> None:
    whole, _ = run(tiny_recipe(tmp_path / "whole", distill=distill))
    cut, _ = run(tiny_recipe(tmp_path / "cut", accumulate=accumulate, distill=distill))
    assert largest_difference(whole, cut) < 1e-12


class KeepTeacher(Callback):
    def on_start(self, state: TrainState) -> None:
        self.model, self.teacher = state.model, state.teacher


def test_a_teacher_is_asked_in_eval_mode_and_neither_trained_nor_saved(tmp_path: Path) -> None:
    """Batch statistics and dropout of its own would change it, and the student's random numbers."""
    kept, before = KeepTeacher(), tiny_teacher("dropout").state_dict()
    run(tiny_recipe(tmp_path, distill=0.5, amp=True), net="dropout", callbacks=[kept])
    assert not kept.teacher.training
    assert kept.model is not kept.teacher
    assert all(torch.equal(value, before[name]) for name, value in kept.teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in kept.teacher.parameters())
    saved = checkpoint_files.load(tmp_path / "latest.pth")
    assert saved["model"].keys() == before.keys()
    held = [name for group in saved["optimizer"]["param_groups"] for name in group["params"]]
    assert len(held) == len(list(kept.model.parameters()))


@pytest.mark.parametrize("distill", [0.0, 0.5])
def test_a_teacher_and_a_share_for_it_go_together(
    tmp_path: Path, distill: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tiny_run.train

    def other_way_round(*arguments: object, teacher: object, **settings: object) -> object:
        return real(*arguments, teacher=None if distill else tiny_teacher("plain"), **settings)

    monkeypatch.setattr(tiny_run, "train", other_way_round)
    with pytest.raises(ValueError, match=f"distill is {distill:g}: give a teacher"):
        run(tiny_recipe(tmp_path, distill=distill))


def test_param_groups_are_three() -> None:
    network = tiny_run.DropoutNet()
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = param_groups(network, lr=0.1, momentum=0.9, weight_decay=1e-4, bias_lr_factor=3)
    found = [({names[p] for p in g["params"]}, g["lr"], g["weight_decay"]) for g in groups]
    assert found == [
        ({"conv.weight", "fc.weight"}, 0.1, 1e-4),
        ({"bn.weight"}, 0.1, 0.0),
        ({"conv.bias", "bn.bias", "fc.bias"}, pytest.approx(0.3), 0.0),
    ]


@pytest.mark.slow
def test_files_and_evaluations(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run(tiny_recipe(tmp_path, epochs=7, val_interval=2, val_last=2, save_interval=3), callbacks=[StepSum()])
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {
        *(
            "log.txt",
            "metrics.jsonl",
            "run.json",
            "tensorboard",
            "init.hdf5",
            "latest.pth",
            "latest-1.pth",
            "finish.hdf5",
        ),
        *("finish.pth", "epoch-3.hdf5", "epoch-6.hdf5"),
    }
    lines = metrics(tmp_path)
    assert [line["epoch"] for line in lines] == list(range(8))
    assert [line["epoch"] for line in lines if "val" in line] == [0, 2, 4, 6, 7]
    assert lines[-1]["scalars"] == {"step_sum": sum(range(50))}
    text = (tmp_path / "log.txt").read_text()
    assert "val at epoch 0, top1=" in text
    assert f"val at epoch 7, top1={lines[-1]['val']['top1']:.4f}, top5=" in text
    assert "sum=1225, TRAIN speed: " in text
    assert text.count("TRAIN speed") == 7 * 7 // 3 + 7 - 2  # every third step, and at ends of epochs that aren't one
    assert caplog.text.count("val at epoch") == 5


def test_rate_of_learning_that_is_told_is_the_one_of_the_step(tmp_path: Path) -> None:
    run(tiny_recipe(tmp_path, epochs=2))
    factors = torch.cos(torch.pi * torch.tensor([6, 13], dtype=torch.float64) / 14)
    assert [line["lr"] for line in metrics(tmp_path)[1:]] == pytest.approx((0.05 * (1 + factors)).tolist())


def test_max_steps_stops_in_mid_epoch(tmp_path: Path) -> None:
    _, result = run(tiny_recipe(tmp_path, max_steps=10))
    assert (result.steps, result.epochs) == (10, 2)
    assert "val" in metrics(tmp_path)[-1]
    assert (tmp_path / "finish.hdf5").exists()


class Order(Callback):
    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def on_start(self, state: TrainState) -> None:
        assert not (state.log.folder / "init.hdf5").exists()
        self.calls.append(("start", state.epoch, state.step))

    def after_step(self, state: TrainState) -> None:
        self.calls.append(("step", state.epoch, state.step))

    def after_epoch(self, state: TrainState) -> None:
        self.calls.append(("epoch", state.epoch, state.step))
        state.save_weights("mine.hdf5")


def test_callbacks_come_in_order(tmp_path: Path) -> None:
    order = Order()
    run(tiny_recipe(tmp_path, epochs=2), callbacks=[order])
    first = [("step", 0, step) for step in range(1, 8)]
    second = [("step", 1, step) for step in range(8, 15)]
    assert order.calls == [("start", 0, 0), *first, ("epoch", 1, 7), *second, ("epoch", 2, 14)]
    assert (tmp_path / "mine.hdf5").exists()


class Shrinks(Callback):
    """Rewraps after steps 2 and 4; nothing changes after that."""

    def on_start(self, state: TrainState) -> None:
        self.networks: dict[int, torch.nn.Module] = {}
        state.settled = lambda: state.step >= 4

    def after_step(self, state: TrainState) -> None:
        if state.step in (2, 4):
            state.rewrap()
        self.networks[state.step] = state.network


@pytest.mark.slow
@pytest.mark.parametrize("compiles", [False, True])
def test_a_network_is_compiled_once_it_keeps_its_shapes(
    tmp_path: Path, compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, modes, steps = [], set(), []
    monkeypatch.setattr(torch, "compile", lambda network, mode: (compiled.append(network), modes.add(mode)) and network)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: steps.append(None))
    run(tiny_recipe(tmp_path / "plain", compile=compiles))
    assert len(compiled) == compiles
    shrinks = Shrinks()
    model, _ = run(tiny_recipe(tmp_path / "shrinks", compile=compiles), callbacks=[shrinks])
    assert compiled[1:] == [model] * compiles
    assert set(shrinks.networks.values()) == {model}
    taught, mode = KeepTeacher(), "reduce-overhead" if compiles else "default"
    settings = {"compile": compiles, "compile_mode": mode, "distill": 0.5}
    model, _ = run(tiny_recipe(tmp_path / "taught", **settings), callbacks=[taught])
    assert compiled[2:] == [taught.teacher, model] * compiles
    assert modes == ({"default", "reduce-overhead"} if compiles else set())
    assert len(steps) == 21 * compiles  # where graphs' memory is overwritten, they must know a step's beginning


@pytest.mark.slow
def test_a_run_of_recorded_steps_is_that_of_any_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout too draws the numbers of its step. The fused optimiser rounds in another way."""
    recorder = Counted()
    monkeypatch.setattr(loop, "CudaGraphs", lambda device: recorder)
    settings = {"epochs": 4, "checkpoint_interval": 5}
    model, result = run(tiny_recipe(tmp_path / "recorded", cuda_graph=True, **settings), net="dropout")
    other, expected = run(tiny_recipe(tmp_path / "plain", **settings), net="dropout")
    assert recorder.replays > 14
    assert result.train.loss == pytest.approx(expected.train.loss, rel=1e-5)
    assert largest_difference(model, other) < 1e-5
    files = [checkpoint_files.load(tmp_path / name / "finish.pth") for name in ("recorded", "plain")]
    assert files[0]["optimizer"]["param_groups"] == files[1]["optimizer"]["param_groups"]


class Break(Callback):
    """Makes one step's loss infinite, and hides that afterwards: the weights are then what they were before."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, state: TrainState) -> None:
        if state.step == self.step - 1:
            self.kept = {name: value.clone() for name, value in state.model.state_dict().items()}
            state.model.scale = float("inf")
        elif state.step == self.step:
            state.model.load_state_dict(self.kept)
            state.model.scale = 1.0


@pytest.mark.parametrize(("checkpoint_interval", "last_good"), [(0, 7), (1, 9)])
def test_non_finite_loss_keeps_the_last_good_checkpoint(
    tmp_path: Path, checkpoint_interval: int, last_good: int
) -> None:
    settings = tiny_recipe(tmp_path, checkpoint_interval=checkpoint_interval, log_interval=100)
    rate = 0.1 * (1 + math.cos(math.pi * 9 / 21)) / 2
    with pytest.raises(NonFiniteLoss, match=rf"loss isn't finite at step 10 \(learning rate {rate:g}\)") as stopped:
        run(settings, callbacks=[Break(step=10)])
    assert isinstance(stopped.value, ValueError)
    saved = checkpoint_files.load(tmp_path / "latest.pth")
    assert saved["step"] == last_good
    assert all(value.isfinite().all() for value in saved["model"].values())
    assert "stopped by NonFiniteLoss" in (tmp_path / "log.txt").read_text()


class BreakWeight(Callback):
    def after_step(self, state: TrainState) -> None:
        if state.step == 14:  # the epoch's last: no loss is computed with it before the checkpoint
            state.model.fc.weight.data[0, 0] = float("nan")


def test_non_finite_weight_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss, match="weight isn't finite after step 14"):
        run(tiny_recipe(tmp_path, val_last=0), callbacks=[BreakWeight()])
    assert checkpoint_files.load(tmp_path / "latest.pth")["step"] == 7


def test_amp_trains_in_bfloat16_and_sums_in_float32(tmp_path: Path) -> None:
    model, result = run(tiny_recipe(tmp_path, amp=True, max_steps=3), net="dropout")
    assert all(parameter.dtype is torch.float32 for parameter in model.parameters())
    assert result.val.loss > 0
