"""The script that measures what the choice on a CPU is worth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.cost import cpu_use


def test_ratios_are_by_round_and_over_the_first_implementations_step() -> None:
    def of_round(first: float, start: float, end: float, plain: float, pruned: float) -> dict[str, dict[str, float]]:
        return {
            cpu_use.FIRST: {"images_per_s": first},
            cpu_use.CHOSEN: {"seconds": plain},
            cpu_use.PRUNED: {"start_images_per_s": start, "end_images_per_s": end, "seconds": pruned},
        }

    found = cpu_use.ratios([of_round(118.0, 400.0, 600.0, 10.0, 9.0), of_round(59.0, 300.0, 400.0, 10.0, 8.0)])
    assert found == {"start": [4.0, 6.0], "end": [6.0, 8.0], "whole": [0.9, 0.8]}


@pytest.mark.slow
@pytest.mark.long
def test_a_short_round(tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    cpu_use.main(["--model", "src8", "--epochs", "1", "--steps", "20", "--rounds", "1", "--output", str(output)])
    (found,) = json.loads(output.read_text())["rounds"]
    assert set(found) == {cpu_use.FIRST, cpu_use.CHOSEN, cpu_use.PRUNED}
    assert all(of_run["seconds"] > 0 and of_run["images_per_s"] > 0 for of_run in found.values())
