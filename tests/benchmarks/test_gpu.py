"""The command for a GPU, in dry runs: what it writes, what it doesn't take for a measurement, what it says is left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_parts import LEFT, PARTS
from tests.scripts import call_main


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No part has a process of its own, which takes seconds to start."""

    def here(work: Any, names: list[str], arguments: tuple, *_: object) -> Iterator[tuple[str, dict]]:
        for name in names:
            yield name, work(name, *arguments)

    monkeypatch.setattr(gpu, "in_processes", here)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("in_this_process", "one_thread")
def test_a_dry_run_is_marked_and_done_once(tmp_path: Path) -> None:
    options = ("--parts", "loading", "--output", tmp_path)
    first = call_main(gpu.main, *options)
    assert first.returncode == 0, first.stderr
    assert "no CUDA device: a dry run" in first.stdout
    assert "nothing was measured" in first.stdout
    (file,) = tmp_path.glob("*")
    found = json.loads(file.read_text())
    assert (file.name, found["part"]) == ("dry_run_loading.json", "loading")
    assert (found["dry_run"], found["device"]) == (True, "cpu")
    assert found["figures"]["labels_are_equal"]
    assert found["figures"]["largest_difference_from_the_cpu"] == 0
    assert {"commit", "hardware", "versions"} <= set(found)
    again = call_main(gpu.main, *options)
    assert "loading: is in" in again.stdout
    assert "begun" not in again.stdout


@pytest.mark.usefixtures("in_this_process")
def test_what_is_left_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"loading": {"failed": "killed"}, "steps": {LEFT: "half of it"}, "tests": {"figures": {"passed": 1}}}
    monkeypatch.setattr(gpu, "run_part", lambda name, setting: answers[name])
    ended = call_main(gpu.main, "--parts", *answers, "--output", tmp_path, "--dry-run")
    assert ended.returncode == 1
    assert "left: loading (killed)\nleft: steps (half of it)\n" in ended.stdout
    assert [file.name for file in tmp_path.glob("*")] == ["dry_run_tests.json"]

    ended = call_main(gpu.main, "--parts", "steps", "--output", tmp_path, "--dry-run", "--seconds", 100)
    assert ended.returncode == 0
    assert f"left: steps (takes some {PARTS['steps'].seconds} s, 100 s are left of this call)" in ended.stdout


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    ended = call_main(gpu.main, "--output", tmp_path / "new", "--cifar", tmp_path / "cifar.tar")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: there is no ")
    assert not (tmp_path / "new").exists()


@pytest.mark.long
@pytest.mark.slow
def test_all_parts_work_at_a_tiny_size(tmp_path: Path) -> None:
    """But for that which waits for a compiler (`gpu_parts/test_compiled.py`)."""
    parts = [part for part in PARTS if part != "compiled"]
    ended = call_main(gpu.main, "--parts", *parts, "--output", tmp_path, "--dry-run")
    assert ended.returncode == 0, ended.stdout
    found = {part: json.loads((tmp_path / f"dry_run_{part}.json").read_text())["figures"] for part in parts}
    assert found["tests"]["passed"] > 0
    assert not found["tests"]["failures"]
    kinds = found["precision"]["kinds"]
    assert all(figures["agrees"] for name, figures in kinds.items() if name != "float32"), kinds
    assert "failed" not in json.dumps([found["steps"], found["large_steps"]])
    assert found["processes"]["collectives"]["right"]
    assert found["processes"]["DistributedDataParallel"]["agrees"]
    assert found["paper_run"]["src56_pruned"]["result"]["conversion"]["float64_difference"] < 1e-10
    assert (tmp_path / "runs.tar").exists()
