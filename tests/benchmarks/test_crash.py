"""What a kill is judged by."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.crash import COMMANDS, LOST, RANDOM, SHORT, SIGNALS, Whole, plan, send, summary
from benchmarks.crash_moments import FILE_EVENT, PARTS
from benchmarks.run_commands import last_step, same_weights
from rr.weights import save_hdf5

KILL = {"place": RANDOM, "signal": "SIGKILL"} | {
    "steps_redone": 2,
    "equal": True,
    "exit_resumed": [0],
    "left_behind": [],
}
COUNTS = {FILE_EVENT: 4, **{part: [0.5, 0.25] for part in PARTS}}


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
    assert found["by_place"] == {RANDOM: 4}
    assert all(found[name] for name in LOST[:3])
    assert not any(summary([KILL])[name] for name in LOST)
    assert summary([{**KILL, "steps_redone": 6}])["redone_too_many"] == 1
    assert summary([KILL, {**KILL, "exit_resumed": [1, 3]}])["not_ended"] == 0


def test_a_plan_has_every_file_event_every_part_with_every_signal_and_random_moments(tmp_path: Path) -> None:
    wholes = {
        name: Whole(tmp_path, 9.0, COUNTS if command.processes == 1 else {}) for name, command in COMMANDS.items()
    }
    kills = plan(wholes, 80)
    assert kills == plan(wholes, 80)
    assert plan(wholes, 10) == kills[:10]
    events = [kill for kill in kills if kill.place == FILE_EVENT]
    assert sorted(kill.number for kill in events) == [1, 2, 3, 4]
    assert {kill.command for kill in events} == {SHORT}
    in_parts = [kill for kill in kills if kill.place in PARTS]
    assert {(kill.place, kill.signal) for kill in in_parts} == {(part, name) for part in PARTS for name in SIGNALS}
    assert all(kill.number in (1, 2) for kill in in_parts)
    others = {(kill.command, kill.signal) for kill in kills if kill.place == RANDOM}
    assert others == {(name, signal_name) for name in COMMANDS if name != SHORT for signal_name in SIGNALS}


def test_a_sample_kills_the_commands_that_are_named(tmp_path: Path) -> None:
    kills = plan({SHORT: Whole(tmp_path, 9.0, {**COUNTS, "refit": []})}, 60)
    assert {kill.command for kill in kills} == {SHORT}
    assert {kill.place for kill in kills} == {FILE_EVENT, RANDOM, *PARTS} - {"refit"}
    without = {name: Whole(tmp_path, 9.0, COUNTS) for name in ("base", "pruning")}
    assert FILE_EVENT not in {kill.place for kill in plan(without, 60)}


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
