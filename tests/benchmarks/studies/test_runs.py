"""The runs of a study as processes: killed, failed, on several processes, and never twice at once."""

from __future__ import annotations

import fcntl
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.studies import runs, short_schedules
from benchmarks.studies.short_schedules import ARMS
from tests.benchmarks.studies.helpers import call
from tests.forked import AMPLE

SCRIPT = Path(short_schedules.__file__)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("forked_runs")
def test_killed_it_goes_on_and_no_run_is_trained_twice_at_once(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = call(place, "--arms", "scratch", "--epochs", "20", "--seeds", "1", "--output", str(place / "killed.json"))
    folder = place / "runs" / "scratch-e20-lr0.1-s1"
    process = subprocess.Popen([sys.executable, str(SCRIPT), *words], stdout=subprocess.PIPE)
    _wait_for(folder, process)  # made by the run itself, which has the lock then
    with pytest.raises(SystemExit):
        short_schedules.main(words)
    assert "another process is at work" in capsys.readouterr().out
    _wait_for(folder / "latest.pth", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(AMPLE) == 128 + signal.SIGTERM
    assert not (folder / "finish.hdf5").exists()
    with open(folder.with_name(f"{folder.name}.out")) as lock:  # its own process is gone as well
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    short_schedules.main(words)
    assert re.search(r"going on after epoch \d+", (folder / "log.txt").read_text())
    assert json.loads((place / "killed.json").read_text())["entries"][0]["top1"]["n"] == 1


def _wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + AMPLE
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_runs")
def test_a_run_that_fails_is_told_and_the_others_go_on(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARMS, "l1", replace(ARMS["l1"], options=("--how", "l0")))
    words = call(place, "--arms", "l1", "base", "--epochs", "1", "--seeds", "1", "--output", str(place / "some.json"))
    with pytest.raises(SystemExit) as stopped:
        short_schedules.main(words)
    assert stopped.value.code == 1
    assert re.search(r"l1-e1-lr0.05-s1: FAILED \(2\): .*l0", capsys.readouterr().out)
    assert [entry["arm"] for entry in json.loads((place / "some.json").read_text())["entries"]] == ["base"]


@pytest.mark.slow
def test_what_needs_another_run_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three at a time, the needed one in the middle: the one that needs it begins once it is finished, or never."""
    finished, begun = set(), []

    def begin(run: runs.Run, *_: object) -> subprocess.Popen:
        begun.append((run.arm, set(finished)))
        finished.update({run.folder} if run.arm != "fails" else set())
        return subprocess.Popen(["true"])

    monkeypatch.setattr(runs, "start", begin)
    monkeypatch.setattr(runs, "read_run", lambda folder: {"top1": 1.0} if folder in finished else None)

    def made(arm: str, after: str | None = None) -> runs.Run:
        return runs.Run(arm, 1, 0.1, 0, tmp_path / arm, (), after and tmp_path / after)

    assert runs.train_all([made("taught", "teacher"), made("teacher"), made("alone")], 3, 1, 1, ())
    assert next(arm for arm, _ in begun) == "teacher"
    assert dict(begun)["taught"] >= {tmp_path / "teacher"}
    begun.clear()
    (tmp_path / "fails.out").write_text("a reason\n")
    assert not runs.train_all([made("never", "fails"), made("fails")], 1, 1, 1, ())
    assert [arm for arm, _ in begun] == ["fails"]
    assert re.search("fails: FAILED .*a reason\n.*never: not trained", capsys.readouterr().out, re.DOTALL)


@pytest.mark.slow
def test_compiling_more_threads_or_processes_make_it_no_other_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands, threads, popen = [], [], subprocess.Popen

    def instead(command: list[str], env: dict[str, str], **options: Any) -> subprocess.Popen:
        commands.append(command)
        threads.append(env["OMP_NUM_THREADS"])
        return popen(["true"], env=env, **options)

    monkeypatch.setattr(runs.subprocess, "Popen", instead)
    # those after the first would raise if they were other runs
    for more in ([], ["--compile"], ["--threads", "2"], ["--processes", "2"]):
        with pytest.raises(SystemExit):
            short_schedules.main(call(place, "--arms", "l1", "--epochs", "3", "--seeds", "0", *more))
    plain, compiled, of_two, in_two = commands
    assert sorted(compiled) == sorted([*plain, "--compile"])
    assert of_two == plain
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    assert in_two == [*plain[: plain.index(sys.executable) + 1], *launcher, *plain[plain.index(sys.executable) + 1 :]]
    assert threads == ["1", "1", "2", "1"]


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_train_a_run_together(place: Path) -> None:
    """A rival's, with four images of each batch for either process."""
    output = place / "together.json"
    more = ("--epochs", "1", "--seeds", "0", "--lr", "0.03", "--processes", "2", "--output", str(output))
    short_schedules.main(call(place, "--arms", "l1", *more))
    (entry,) = json.loads(output.read_text())["entries"]
    assert [run["processes"] for run in entry["runs"]] == [2]
    assert 0.4 < entry["macs_ratio"]["mean"] <= 1
