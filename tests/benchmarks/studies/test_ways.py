"""The README's table of ways: the best rate of each, with how many were tried."""

from __future__ import annotations

from typing import Any

from benchmarks.studies.ways import ways_table


def entry(arm: str, epochs: int, lr: float, mean: float, seeds: int = 1) -> dict[str, Any]:
    spread = 0.25 if seeds > 1 else None
    run = {"threads": 1, "hardware": {"cpu": "a CPU"}, "versions": {"torch": "2"}}
    top1 = {"mean": mean, "spread": spread, "n": seeds}
    return {"arm": arm, "epochs": epochs, "lr": lr, "top1": top1, "runs": [run] * seeds}


def test_each_way_has_its_best_rate_and_says_how_many_were_tried() -> None:
    entries = [
        entry("fast", 12, 0.01, 80.0),
        entry("fast", 12, 0.02, 86.0, seeds=3),
        entry("fast", 12, 0.05, 85.0),
        entry("fast", 25, 0.05, 87.0),
        entry("l1", 12, 0.05, 84.0),
        entry("fast-diagonal", 12, 0.05, 84.0),
    ]
    points = [{"mean": 0.8, "spread": spread, "n": 3 if spread else 1} for spread in (0.2, 0.5, None)]
    leads = [{"rival": "l1", "points": each} for each in points] + [{"rival": "base", "points": points[0]}]
    results = {"network": "src20", "data": "images", "target": 0.47, "entries": entries, "leads": leads}
    lines = ways_table(results).splitlines()
    assert lines[0] == "| way | 12 epochs | 25 epochs |"
    assert "| `--fast` | 86.00% ± 0.25 (n = 3; 3 rates) | 87.00% (n = 1; 1 rate) |" in lines
    assert "| uniform L1, then fine-tuning | 84.00% (n = 1; 1 rate) |  |" in lines
    assert "47% of its MACs" in lines[-1]
    assert "a CPU, one core a run, torch 2" in lines[-1]
    assert "Leads over L1 with several seeds: 2, of which 1 clear of their 95% interval." in lines[-1]
