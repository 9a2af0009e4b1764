"""The coverage script: which networks, in which order, and a call of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.coverage import run
from benchmarks.coverage.figures import BARS
from benchmarks.coverage.networks import PACKAGES, names
from benchmarks.coverage.run import in_short, main, missing
from tests.benchmarks.coverage.helpers import figures


def test_a_stopped_run_goes_on() -> None:
    assert missing(["a", "b", "c"], {"models": {"b": {}}}) == ["a", "c"]


def test_lines_on_a_network() -> None:
    found = figures(seconds=3.0)
    assert in_short(found) == "90.0% of the MACs can go, 3 s, all bars passed"
    assert in_short({**found, "trains": "no", "exports": False}).endswith("MISSED: trains, exports")
    assert in_short({"failed": "why"}) == "FAILED: why"
    assert in_short({**found, "not_run": "too large"}).endswith("3 s; too large")


def test_the_postponed_come_at_the_end_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_turn(_: object, names: list[str], arguments: tuple, jobs: int, *_others: object) -> Any:
        calls.append((list(names), jobs))
        for name in names:
            yield name, {"postponed": 1} if name == "large" and arguments[-1] < math.inf else {"name": name}

    calls: list[tuple[list[str], int]] = []
    monkeypatch.setattr(run, "in_processes", in_turn)
    found = list(run.examined(["large", "small"], jobs=2, threads=1, most_parameters=9, limit_s=1))
    assert found == [("small", {"name": "small"}), ("large", {"name": "large"})]
    assert calls == [(["large", "small"], 2), (["large"], 1)]


def test_what_needs_a_package_that_is_not_there_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def in_turn(names: list[str], *_: Any) -> Any:
        asked.extend(names)
        return iter(())

    monkeypatch.setitem(PACKAGES, "ultralytics", ("no_such_module", "no-such-package"))
    monkeypatch.setattr(run, "examined", in_turn)
    output = ["--output", str(tmp_path / "c.json")]
    main([*output, "--family", "detection"])
    assert asked == [name for name in names("detection") if not name.startswith("ultralytics/")]
    assert "left out: 8 networks that need the package no-such-package: `pip install no-such" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*output, "--models", "ultralytics/yolov8n", "own/rt_detr"])
    assert "ultralytics/yolov8n need the package no-such-package" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.slow
def test_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "there" / "coverage.json"
    options = ["--output", str(output), "--models", "src20"]
    main(options)
    assert capsys.readouterr().out.startswith("[1/1] src20: 99.8% of the MACs can go")
    first = json.loads(output.read_text())
    assert first["models"]["src20"]["bars"] == dict.fromkeys(BARS, True)
    assert first["models"]["src20"]["commit"] == first["commit"]
    assert {"versions", "hardware", "threads", "jobs"} <= set(first)
    assert output.with_name("coverage_seconds.png").stat().st_size > 5_000
    main(options)  # goes on: nothing is left to do
    assert capsys.readouterr().out == ""
    assert json.loads(output.read_text())["models"] == first["models"]

    main([*options[:2], "--trace-again", "src20"])
    again = json.loads(output.read_text())["models"]["src20"]
    changed = {key for key, value in again.items() if value != first["models"]["src20"][key]}
    assert changed == {"trace_seconds", "trace_cpu_seconds"}


def test_options_that_make_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path / "c.json")]
    for options, message in (
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--models", "src20", "--again", "src20"], "not allowed with argument"),
        (["--family", "mammals"], "invalid choice"),
        (["--family", "dense", "--models", "src20"], "not allowed with argument"),
        (["--trace-again", "src20"], "examine it first"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([*output, *options])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
