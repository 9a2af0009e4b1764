"""Work in processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from benchmarks.processes import in_processes
from tests.benchmarks.process_work import work
from tests.forked import AMPLE
from tests.scripts import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("preload", [(), ("json", "fractions")])
def test_each_in_a_process_of_its_own_and_a_dead_one_is_a_failure(preload: tuple[str, ...]) -> None:
    found = dict(in_processes(work, ["a", "killed", "b", "c"], ("!",), 2, 600, preload))
    assert {name: result["name"] for name, result in found.items() if "name" in result} == {
        name: f"{name}!" for name in "abc"
    }
    assert len({found[name]["process"] for name in "abc"} | {os.getpid()}) == 4
    assert "exit code -9" in found["killed"]["failed"]
    (late,) = in_processes(work, ["slow"], ("!",), 2, 0.5, preload)
    assert late == ("slow", {"failed": "not done after 0.5 s"})


@pytest.mark.parametrize("preload", [(), ("json",)])
def test_a_process_ends_with_the_one_that_started_it(preload: tuple[str, ...]) -> None:
    """Its parent is killed; the pipe that both write to ends when nobody is left who could."""
    words = f"from {in_processes.__module__} import in_processes; from {work.__module__} import work; "
    words += f"list(in_processes(work, ['slow'], ('',), 1, 600, {preload!r}))"
    with subprocess.Popen([sys.executable, "-c", words], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
        try:
            parent.communicate(timeout=AMPLE)
        except subprocess.TimeoutExpired:
            os.kill(child, signal.SIGKILL)
            raise
