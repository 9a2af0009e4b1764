"""The table of time targets: each cell from its own figure, and what misses is marked and counted."""

from __future__ import annotations

from typing import Any

from benchmarks.latency_table import PACKAGES, latency_target_table


def row(network: str, **found: Any) -> dict[str, Any]:
    return {"network": network, "runtime": "openvino", "batch": 64, "asked": 0.5, "image_size": 32, **found}


def measured(median: float) -> dict[str, Any]:
    return {
        "found": {"macs_share": 0.31, "width_multiple": 8, "median": 0.499},
        "fresh": {"median": median, "low": median - 0.01, "high": median + 0.01},
    }


def test_each_row_has_its_figures_and_what_misses_is_counted() -> None:
    rows = [row("near", **measured(0.514)), row("off", **measured(0.48)), row("never", error="can't be reached")]
    made = {
        "versions": {name: f"{name}'s" for name in PACKAGES},
        "hardware": {"cpu": "a CPU"},
        "commit": "0123456789ab",
    }
    table = latency_target_table({"rows": rows, **made}).splitlines()
    assert table[2] == ("| `near`, 32 px | OpenVINO | 64 | 50% | 31.0% | 8 | 49.9% | 51.4% | 50.4%, 52.4% | +2.8% |")
    assert table[3].endswith("| **-4.0%** |")
    assert "can't be reached" in table[4]
    assert len({line.count("|") for line in table[:5]}) == 1
    assert table[-1].startswith("1 of 3 within 3% of what was asked")
    assert "a CPU" in table[-1]
