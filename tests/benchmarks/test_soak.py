"""The long run, made short."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import soak


def point(step: int, mib: float, files: int = 20) -> dict[str, float]:
    return {"s": step / 100, "step": step, "mib": mib, "files": files}


def test_a_leak_shows_and_what_comes_before_the_run_is_warm_does_not() -> None:
    warm = [point(step, 100 + step / 10) for step in range(0, 200, 20)]
    flat = [*warm, *(point(step, 120.0) for step in range(200, 1001, 20)), point(1000, 500.0, files=90)]
    assert soak.summary(flat) == {
        **{"steps": 1000, "mib_first": 120.0, "mib_last": 120.0, "mib_per_1000_steps": 0.0},
        **{"files_least": 20, "files_most": 20},
    }
    leaky = [point(step, 120 + step / 50, files=20 + step // 500) for step in range(0, 1001, 20)]
    assert soak.summary(leaky)["mib_per_1000_steps"] == 20
    assert soak.summary(leaky)["files_most"] == 21


@pytest.mark.long
@pytest.mark.slow
def test_a_short_run_writes_the_curve_and_its_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "EVERY_S", 0.05)
    output = tmp_path / "soak.json"
    soak.main(["--steps", "60", "--interval", "5", "--output", str(output)])
    found = json.loads(output.read_text())
    assert 50 <= found["summary"]["steps"] <= 60
    assert 0 < found["summary"]["checkpoint_share"] < 1
    assert found["points"][-1]["mib"] > 50
    assert output.with_suffix(".png").stat().st_size > 5000
