"""What a kill is judged by."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.crash import COMMANDS, send, summary
from benchmarks.run_commands import last_step, same_weights
from rr.weights import save_hdf5

KILL = {"steps_redone": 2, "equal": True, "exit_resumed": [0], "left_behind": []}


def test_what_was_lost_is_counted() -> None:
    kills = [
        KILL,
        {**KILL, "steps_redone": None},
        {**KILL, "equal": False, "steps_redone": 5},
        {**KILL, "exit_resumed": [1, 1, 1], "left_behind": ["a.new"]},
    ]
    found = summary(kills)
    assert (found["kills"], found["in_mid_training"], found["unequal"], found["not_ended"]) == (4, 3, 1, 1)
    assert (found["most_steps_redone"], found["left_behind"]) == (5, 1)
    assert summary([KILL, {**KILL, "exit_resumed": [1, 3]}])["not_ended"] == 0


def test_a_single_bit_makes_weights_others(tmp_path: Path) -> None:
    one, other = torch.ones(3), torch.ones(3)
    other.view(torch.int32)[1] ^= 1
    for name, values in (("a", one), ("b", one), ("c", other)):
        save_hdf5(tmp_path / f"{name}.hdf5", {"w": values}, {})
    assert same_weights(tmp_path / "a.hdf5", tmp_path / "b.hdf5")
    assert not same_weights(tmp_path / "a.hdf5", tmp_path / "c.hdf5")


def test_the_last_step_is_that_of_the_log(tmp_path: Path) -> None:
    assert last_step(tmp_path) == 0
    (tmp_path / "log.txt").write_text("2026 step 3 of 69, lr=0.1\n2026 step 14 of 69, lr=0.1\nval at epoch 1\n")
    assert last_step(tmp_path) == 14


def test_a_signal_arrives() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    send(process, COMMANDS["base"], "SIGTERM")
    assert process.wait(60) == -signal.SIGTERM


def test_command_lines_name_their_folder_and_their_processes(tmp_path: Path) -> None:
    for name, command in COMMANDS.items():
        words = command.words(tmp_path / "base.hdf5", tmp_path / "run", "-c", "continue")
        assert words[-4:] == ["--output-dir", str(tmp_path / "run"), "-c", "continue"]
        assert ("--nproc_per_node" in words) == ("two" in name)
        assert "{base}" not in " ".join(words)
