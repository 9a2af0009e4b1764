"""Processes that a script starts for itself; whole runs of them: test_distributed_runs.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from experiments.call import Call
from experiments.side_processes import on_cores
from rr.errors import InputError
from training import Recipe

TWO = Recipe("src8", "digits", processes=2, threads=1)


def test_one_that_ends_before_the_run_begins_is_told_of_at_once(tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text("import sys\nsys.exit(7)\n")
    before = dict(os.environ)
    told = "process 1 of this run has ended before it began, with exit status 7"
    with pytest.raises(InputError, match=told), on_cores(TWO, Call(script=str(script))):
        pytest.fail("the run began")
    assert dict(os.environ) == before


def test_threads_are_the_recipes_within_the_run_alone() -> None:
    before = torch.get_num_threads()
    with on_cores(Recipe("src8", "digits", threads=before + 1), Call()):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_a_launcher_decides_on_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with on_cores(TWO, Call(script="train.py")):  # the run began without one: its run.json says 2
        assert os.environ["WORLD_SIZE"] == "4"
    typed = Call(script="train.py", typed=frozenset({"processes"}))
    with pytest.raises(InputError, match="processes is for a start without torchrun"), on_cores(TWO, typed):
        pytest.fail("the run began")


def test_without_a_script_there_is_nothing_to_start() -> None:
    with pytest.raises(InputError, match="processes needs a script"), on_cores(TWO, Call()):
        pytest.fail("the run began")
