"""A killed run that goes on gives bit for bit what an uninterrupted one gives."""

import json
import signal
from pathlib import Path

import pytest
import torch

from rr.errors import InputError
from rr.settings import Share
from tests import forked
from tests.scripts import Done
from tests.training import tiny_run
from tests.training.tiny_run import StepSum, metrics_without_times, run, tiny_recipe
from training import Callback, TrainState, checkpoint, checkpoint_files

pytestmark = pytest.mark.usefixtures("one_thread")


def command(folder: Path, *words: str) -> Done:
    arguments = ["--net", "dropout", "--output-dir", str(folder), "--checkpoint-interval", "3", *words]
    return forked.run("-m", tiny_run.__name__, *arguments)


def assert_same(a: object, b: object, place: str = "") -> None:
    """Equal to the last bit, tensors and numbers, all the way down."""
    assert type(a) is type(b), place
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, place
        assert torch.equal(a, b), place
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            assert_same(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), place
        for index, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_same(left, right, f"{place}[{index}]")
    else:
        assert a == b, place


def assert_same_runs(one: Path, other: Path) -> None:
    a, b = (checkpoint_files.load(folder / "finish.pth") for folder in (one, other))
    del a["recipe"], b["recipe"]  # they differ in output_dir and checkpoint_interval
    assert_same(a, b)
    assert metrics_without_times(one) == metrics_without_times(other)


@pytest.mark.slow
@pytest.mark.parametrize(("distill", "average"), [(0.0, None), (0.5, Share(0.75))])
def test_kill_in_mid_epoch_changes_nothing(tmp_path: Path, distill: float, average: Share | None) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    cutout = 3 if average else 0
    run(
        tiny_recipe(whole, distill=distill, average_last=average, cutout=cutout),
        net="dropout",
        callbacks=[StepSum(), Callback()],
    )
    settings = ("--distill", str(distill), "--average-last", str(average and float(average)).lower())
    settings += ("--cutout", str(cutout))
    stopped = command(killed, *settings, "--kill-at", "11")  # checkpoints at 3, 6, 7 (epoch), 9
    assert stopped.returncode == -signal.SIGKILL, stopped.stderr
    assert checkpoint_files.load(killed / "latest.pth")["step"] == 9
    assert not (killed / "finish.hdf5").exists()
    resumed = command(killed, *settings, "-c", "continue")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_runs(whole, killed)
    assert len(json.loads((killed / "run.json").read_text())["resumed"]) == 1


class Stop(Exception):
    pass


class StopAt(Callback):
    def __init__(self, step: int, after_epoch: bool = False) -> None:
        self.step, self.at_epoch = step, after_epoch

    def after_step(self, state: TrainState) -> None:
        if state.step == self.step and not self.at_epoch:
            raise Stop

    def after_epoch(self, state: TrainState) -> None:
        if state.step == self.step and self.at_epoch:
            raise Stop


@pytest.mark.slow
@pytest.mark.parametrize("stop", [StopAt(8), StopAt(14, after_epoch=True), StopAt(21, after_epoch=True)])
def test_stop_at_any_place_changes_nothing(tmp_path: Path, stop: StopAt) -> None:
    run(tiny_recipe(tmp_path / "whole"), net="dropout", callbacks=[StepSum(), Callback()])
    settings = tiny_recipe(tmp_path / "stopped", checkpoint_interval=7)  # at the end of an epoch too
    with pytest.raises(Stop):
        run(settings, net="dropout", callbacks=[StepSum(), stop])
    run(settings, net="dropout", callbacks=[StepSum(), Callback()], conti_or_fs="continue")
    assert_same_runs(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
def test_stop_between_the_metrics_line_and_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tiny_recipe(tmp_path / "whole"), net="dropout", callbacks=[StepSum()])
    real = checkpoint.save

    def save(path: Path, state: dict, keep: int) -> None:
        if state["step"] == 14:
            raise Stop
        real(path, state)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        with pytest.raises(Stop):
            run(tiny_recipe(tmp_path / "stopped"), net="dropout", callbacks=[StepSum()])
    assert len(metrics_without_times(tmp_path / "stopped")) == 3  # the second epoch is in it, and will be done again
    run(tiny_recipe(tmp_path / "stopped"), net="dropout", callbacks=[StepSum()], conti_or_fs="continue")
    assert_same_runs(tmp_path / "whole", tmp_path / "stopped")


def test_stop_after_the_last_checkpoint_only_finishes(tmp_path: Path) -> None:
    settings = tiny_recipe(tmp_path / "run", val_last=0)
    run(settings, net="dropout", callbacks=[StepSum()])
    for name in ("finish.hdf5", "finish.pth"):
        (tmp_path / "run" / name).unlink()
    before = metrics_without_times(tmp_path / "run")
    _, result = run(settings, net="dropout", callbacks=[StepSum()], conti_or_fs="continue")
    assert result.train is None
    assert result.val.to_dict() == before[-1]["val"]
    assert metrics_without_times(tmp_path / "run") == before
    assert (tmp_path / "run" / "finish.hdf5").exists()


@pytest.mark.parametrize("place", [{"step": 10**6}, {"epoch": 0}, {"skipped": {}}])
def test_a_checkpoint_of_another_length_is_refused(tmp_path: Path, place: dict[str, object]) -> None:
    """One that says a millionth step was taken for a finished run: its weights were written as the result."""
    settings = tiny_recipe(tmp_path / "run", checkpoint_interval=9)
    with pytest.raises(Stop):
        run(settings, net="dropout", callbacks=[StepSum(), StopAt(11)])
    latest = tmp_path / "run" / "latest.pth"
    checkpoint_files.save(latest, {**checkpoint_files.load(latest), **place})
    with pytest.raises(InputError, match="isn't one of this run"):
        run(settings, net="dropout", callbacks=[StepSum(), Callback()], conti_or_fs="continue")
    assert not (tmp_path / "run" / "finish.hdf5").exists()
