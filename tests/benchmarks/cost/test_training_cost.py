"""A tiny call of the script that measures training cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.cost import training_cost
from benchmarks.cost.training_figures import FLOOR, VARIANTS


@pytest.mark.long
@pytest.mark.slow
def test_a_tiny_run_writes_figures_and_plot_and_keeps_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_cost, "VARIANTS", (FLOOR,))  # whose memory is measured: one process will do
    output = tmp_path / "new" / "cost.json"
    tiny = ["--batch", "2", "--image-size", "16", "--points", "3", "--rounds", "2", "--warmup", "1", "--threads", "1"]
    command = ["--output", str(output), "--models", "src8", *tiny]
    training_cost.main(command)
    entry = json.loads(output.read_text())["entries"]["src8 bfloat16"]
    assert [point["progress"] for point in entry["points"]] == [0, 0.5, 1]
    assert entry["points"][0]["taken_out"] == 0 < entry["points"][1]["taken_out"] < entry["points"][2]["taken_out"]
    assert entry["points"][2]["macs_ratio"] <= 0.47
    assert all(set(point["ms"]) == set(VARIANTS) and min(point["ms"].values()) > 0 for point in entry["points"])
    assert set(entry["bars"].values()) <= {True, False}
    assert all(min(times["convolutions"], times["other"]) > 0 for times in entry["profile"].values())
    assert 0 < entry["hooks"]["at the target"]["share_of_step"] < 1
    assert {"commit", "hardware", "versions", "threads"} <= set(entry)
    if Path("/proc/self/status").exists():
        assert 0 < entry["memory"][FLOOR]["mib"] < entry["memory"][FLOOR]["whole_process_mib"]
    picture = output.with_suffix(".png")
    assert picture.stat().st_size > 10_000

    written = output.read_text()
    monkeypatch.setattr(training_cost, "measure", lambda setting: pytest.fail("measured again"))
    capsys.readouterr()
    training_cost.main(command)
    assert "already" in capsys.readouterr().out
    assert output.read_text() == written


def test_an_unknown_network_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        training_cost.main(["--output", str(tmp_path / "cost.json"), "--models", "src21"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
