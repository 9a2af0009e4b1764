"""A script that is killed at a moment of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.crash_moments import FILE_EVENT, PARTS, ROOT, Moment
from tests.forked import AMPLE

# Three file events: a folder, a file beside another, and its way into that one's place. Reading it is none.
SCRIPT = """
import os, sys
folder = sys.argv[1]
os.mkdir(folder)
open(folder + "/a.1.new", "w").close()
os.replace(folder + "/a.1.new", folder + "/a")
open(folder + "/a").close()
"""


def run(tmp_path: Path, script: str, moment: Moment) -> int:
    (tmp_path / "script.py").write_text(script)
    words = [str(ROOT / "benchmarks" / "killed_at.py"), moment.as_text(), str(tmp_path / "script.py")]
    return subprocess.run([sys.executable, *words, moment.folder], timeout=AMPLE).returncode


@pytest.mark.slow
def test_file_events_are_counted_and_a_run_is_killed_before_the_one_that_is_named(tmp_path: Path) -> None:
    counts = tmp_path / "counts.json"
    assert run(tmp_path, SCRIPT, Moment(str(tmp_path / "whole"), counts=str(counts))) == 0
    assert json.loads(counts.read_text())[FILE_EVENT] == 3
    for number, left in ((1, None), (2, []), (3, ["a.1.new"])):
        folder = tmp_path / str(number)
        assert run(tmp_path, SCRIPT, Moment(str(folder), number=number)) == -signal.SIGKILL
        assert (sorted(path.name for path in folder.iterdir()) if folder.exists() else None) == left


@pytest.mark.slow
def test_a_run_is_killed_inside_a_part(tmp_path: Path) -> None:
    """The report's function, which is let wait; the second call of two."""
    script = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from experiments.run_report import page
page.read_run = lambda folder: time.sleep(float(folder))
for seconds in ("0", "600"):
    try:
        page.write_report([seconds])
    except AttributeError:
        pass
"""
    moment = Moment(str(tmp_path / "run"), "report", 2, "SIGTERM", after=0.05)
    assert run(tmp_path, script, moment) == -signal.SIGTERM


@pytest.mark.parametrize("part", PARTS)
def test_the_parts_are_functions_of_these_files(part: str) -> None:
    file, name = PARTS[part]
    assert f"def {name}(" in (ROOT / file).read_text()
