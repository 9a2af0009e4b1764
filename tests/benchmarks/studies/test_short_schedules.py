"""A tiny call of the short schedules: arms of every kind are trained, and then read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.studies import runs, short_schedules, study
from benchmarks.studies.short_schedules import ARMS
from tests.benchmarks.studies.helpers import call


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("forked_runs")
def test_arms_run_once_and_are_read_then(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out = ("resrep", "fast", "fast-diagonal", "fast-distill", "l1", "l1-distill")  # others have all of it
    arms = {name: arm for name, arm in ARMS.items() if name not in left_out}
    monkeypatch.setattr(short_schedules, "ARMS", arms)
    words = call(place, "--epochs", "2", "--seeds", "0", "--jobs", "2")
    short_schedules.main(words)
    results = json.loads((place / "results" / "short.json").read_text())
    assert (place / "results" / "short.png").stat().st_size > 10_000
    assert str(place) not in (place / "results" / "short.json").read_text()
    entries = {entry["arm"]: entry for entry in results["entries"]}
    assert list(entries) == list(arms)
    for name, entry in entries.items():
        (run,) = entry["runs"]
        assert entry["top1"] == {"mean": run["top1"], "spread": None, "n": 1}
        assert {"commit", "versions", "hardware"} <= set(run)
        assert entry["recipe"]["amp"]
        assert entry["recipe"]["batch_size"] == 128
        assert entry["recipe"]["distill"] == (0.5 if "distill" in name else 0.0)
        assert entry["recipe"]["distill_until"] == (0.65 if name.endswith("distill-part") else 1.0)
        assert entry["lr"] == arms[name].lr == entry["recipe"]["lr"]
        is_cut = arms[name].script == study.RIVALS and name != "base"  # two steps are too few for compactors
        assert (run["macs_ratio"] <= 0.47) == is_cut
        assert (run["base"] is None) == (name == "scratch")
        assert (run["after_cut"] is None) == (name in ("base", "scratch"))
    assert len({entry["runs"][0]["base"] for name, entry in entries.items() if name != "scratch"}) == 1

    for lead in results["leads"]:  # image by image, of the networks that the runs ended with
        paired = lead["paired"]
        assert paired["points"] == pytest.approx(lead["points"]["mean"])

    first = (place / "results" / "short.json").read_text()
    monkeypatch.setattr(runs, "start", lambda *_: pytest.fail("started again"))
    short_schedules.main(words)
    assert (place / "results" / "short.json").read_text() == first
    short_schedules.main([*words, "--report", "--seeds", "0", "1"])  # those of another seed aren't trained
    assert (place / "results" / "short.json").read_text() == first
    assert "torch-pruning" in capsys.readouterr().out

    scratch = arms["scratch"]
    monkeypatch.setitem(arms, "scratch", replace(scratch, options=(*scratch.options, "--momentum", "0.8")))
    with pytest.raises(SystemExit) as stopped:
        short_schedules.main(words)
    assert stopped.value.code == 2
    assert "other options" in capsys.readouterr().err
