"""A long run in slices: it stops in time, goes on, and can be carried to another machine in one file."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.gpu_parts import paper_run
from benchmarks.gpu_parts.paper_run import Run, go_on, pack, runs_of, unpack
from benchmarks.gpu_parts.setting import Setting
from rr.errors import InputError

# Counts its starts; told to stop it leaves a checkpoint and status 143, the third time it ends by itself.
SCRIPT = """
import signal, sys, time
from pathlib import Path
folder = Path(sys.argv[sys.argv.index("--output-dir") + 1])
folder.mkdir(exist_ok=True)
starts = len(list(folder.glob("start*")))
(folder / f"start{starts}").touch()
if starts == 2:
    (folder / "finish.hdf5").touch()
    sys.exit(3)
if starts == 3:
    sys.exit("no such thing")
def stop(*_):
    (folder / "latest.pth").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "script.py").write_text(SCRIPT)
    return Run("base", str(tmp_path / "script.py"), (), "finish.hdf5")


@pytest.mark.slow
def test_a_run_is_stopped_in_time_and_goes_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_run, "STARTS_IN", 0.1)
    monkeypatch.setattr(paper_run, "STOPS_IN", 10)

    def slice_of(seconds: float) -> bool:
        return go_on(run, tmp_path, Setting(tmp_path, until=time.time() + seconds))

    assert not slice_of(11)  # stopped
    assert (tmp_path / "base" / "latest.pth").exists()
    assert not slice_of(0)  # not begun
    assert not slice_of(11)
    assert slice_of(60)  # its target missed, which is an end
    assert len(list((tmp_path / "base").glob("start*"))) == 3
    with pytest.raises(InputError, match=r"ended with status 1: no such thing"):
        slice_of(60)


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_what_going_on_takes_is_packed(run: Run, tmp_path: Path) -> None:
    here, there, archive = tmp_path / "here", tmp_path / "there", tmp_path / "runs.tar"
    names = ("run.json", "metrics.jsonl", "latest.pth", "latest-1.pth", "finish.pth", "init.hdf5", "tensorboard/events")
    for name in names:
        (here / "base" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "base" / name).write_text(name)
    pack([run], here, archive)
    unpack(archive, there)
    assert names_in(there / "base") == {"run.json", "metrics.jsonl", "latest.pth"}
    (here / "base" / "finish.hdf5").write_text("weights")
    pack([run], here, archive)
    unpack(archive, there)  # which has the runs already
    assert not (there / "base" / "finish.hdf5").exists()
    unpack(archive, tmp_path / "third")
    assert names_in(tmp_path / "third" / "base") == {"run.json", "metrics.jsonl", "finish.hdf5"}


def test_the_runs_are_the_papers_and_know_no_folder_of_the_machine(tmp_path: Path) -> None:
    base, pruned = runs_of(Setting(tmp_path, dry_run=False))
    assert base.options == ("-a", "src56", "--dataset", "folder", "--data-dir", "cifar10_jpeg")
    assert pruned.options == (*base.options, "--weights", "src56_base/finish.hdf5", "--narrow", "full")
    (only,) = runs_of(Setting(tmp_path, dry_run=False, base=Path("w.hdf5")))
    assert only.options[-3:] == ("given_base.hdf5", "--narrow", "full")
    with pytest.raises(InputError, match="give --cifar"):
        paper_run.measure(Setting(tmp_path, dry_run=False))
