"""Several processes give what one gives; devices that aren't there are refused."""

import argparse
import signal
from pathlib import Path

import pytest
import torch

from tests.forked import run_ranks
from tests.training import tiny_run
from tests.training.tiny_run import StepSum, metrics_without_times, run, tiny_recipe
from training import World, add_local_rank, checkpoint_files, evaluate
from training.distributed import choose_device


def in_two_processes(folder: Path, *words: str) -> None:
    done = run_ranks(2, "-m", tiny_run.__name__, "--output-dir", folder, *words)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("distill", [0.0, 0.5])
def test_two_processes_take_the_steps_of_one(tmp_path: Path, distill: float) -> None:
    """50 images in batches of 7 and 8: the processes' parts are of 3 and 4 images, or 4 and 4, each cut in two."""
    one, two = tmp_path / "one", tmp_path / "two"
    run(tiny_recipe(one, distill=distill), callbacks=[StepSum()])
    in_two_processes(two, "--accumulate", "2", "--distill", str(distill))
    a, b = (checkpoint_files.load(folder / "finish.pth") for folder in (one, two))
    for name, value in a["model"].items():
        assert torch.allclose(value, b["model"][name], rtol=0, atol=1e-12), name
    assert a["callbacks"][0] == b["callbacks"][0]
    for line, other in zip(metrics_without_times(one), metrics_without_times(two), strict=True):
        for part in ("train", "val"):  # the evaluation is shared out, too: 21 images in batches of 8
            assert other.get(part) == pytest.approx(line.get(part), abs=1e-9)
    assert (two / "log.txt").read_text().count("val at epoch 0") == 1


@pytest.mark.slow
def test_all_processes_are_evaluated_with_the_first_ones_statistics(tmp_path: Path) -> None:
    """Each process has its own BN statistics, and rank 0's are in the files: the evaluation must be of those."""
    in_two_processes(tmp_path / "two", "--net", "dropout", "--max-steps", "7")
    model = tiny_run.DropoutNet()
    model.load_state_dict(checkpoint_files.load(tmp_path / "two" / "finish.pth")["model"])
    alone = evaluate(model, tiny_run.tiny_data(), World(0, 0, 1, torch.device("cpu")), batch_size=8)
    assert metrics_without_times(tmp_path / "two")[-1]["val"] == pytest.approx(alone.to_dict(), rel=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("left", [1, 4])
def test_another_number_of_processes_goes_on_with_the_same_batches(tmp_path: Path, left: int) -> None:
    """Of two processes one is killed; what another number of them makes of the rest is what one makes of it all."""
    one, other = tmp_path / "one", tmp_path / "other"
    run(tiny_recipe(one), callbacks=[StepSum()])
    words = ["-m", tiny_run.__name__, "--output-dir", other, "--checkpoint-interval", "3"]
    stopped = run_ranks(2, *words, "--kill-at", "11", "--of-rank", "1", "--process-timeout", "60")
    assert stopped.returncode == 1
    assert "error: process 1 of 2 (from 0) is gone, or hangs; the same command with -c continue" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    done = run_ranks(left, *words, "-c", "continue")
    assert done.returncode == 0, done.stderr
    assert "going on after epoch 1, step 9 of 21" in done.stderr
    a, b = (checkpoint_files.load(folder / "finish.pth") for folder in (one, other))
    for name, value in a["model"].items():
        assert torch.allclose(value, b["model"][name], rtol=0, atol=1e-12), name
    for line, again in zip(metrics_without_times(one), metrics_without_times(other), strict=True):
        assert again.get("train") == pytest.approx(line.get("train"), abs=1e-9)


@pytest.mark.long
def test_one_that_hangs_ends_the_run_with_its_name(tmp_path: Path) -> None:
    words = ["--output-dir", tmp_path, "--kill-at", "11", "--of-rank", "1", "--by", "STOP", "--process-timeout", "5"]
    done = run_ranks(2, "-m", tiny_run.__name__, *words)
    assert done.returncode == 1, done.stderr
    assert "error: process 1 of 2 (from 0) is gone, or hangs" in done.stderr
    assert f"-c continue goes on from {tmp_path / 'latest.pth'}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_signal_to_one_process_in_the_last_step_stops_all(tmp_path: Path) -> None:
    words = ["--output-dir", tmp_path, "--kill-at", "21", "--of-rank", "1", "--by", "TERM"]
    done = run_ranks(2, "-m", tiny_run.__name__, *words)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert f"stopped; the same command with -c continue goes on from {tmp_path / 'latest.pth'}" in done.stderr
    assert checkpoint_files.load(tmp_path / "latest.pth")["step"] == 21


def test_auto_takes_what_is_there() -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto").type == expected


@pytest.mark.parametrize("name", ["gpu0", "cuda:99", "meta", "cuda:-1"])
def test_devices_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"choose"):
        choose_device(name)


@pytest.mark.parametrize("flag", ["--local-rank", "--local_rank"])
def test_both_spellings_of_the_launchers_option(flag: str) -> None:
    parser = argparse.ArgumentParser()
    add_local_rank(parser)
    assert parser.parse_args([f"{flag}=3"]).local_rank == 3
    assert flag not in parser.format_help()
