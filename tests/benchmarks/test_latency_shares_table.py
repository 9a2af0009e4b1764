"""The table of what becomes of fewer MACs: each cell from its own figure, and each bar judged."""

from __future__ import annotations

from typing import Any

from benchmarks.latency_shares_table import latency_shares_table
from benchmarks.latency_table import PACKAGES


def row(runtime: str, batch: int, faster: float | None) -> dict[str, str]:
    made = {"width_multiple": "8" if faster else "", "runtime": runtime, "infer_batch_size": str(batch)}
    share = {"times_faster": f"{faster}", "share_of_promise": f"{faster / 2:.4f}"} if faster else {}
    return made | ({"times_faster": "", "share_of_promise": ""} | share)


def table(**found: Any) -> list[str]:
    made = {
        "versions": {name: f"{name}'s" for name in PACKAGES},
        "hardware": {"cpu": "a CPU"},
        "commit": "0123456789ab",
    }
    return latency_shares_table({**made, "networks": {"net": {"left_out": {}, **found}}}).splitlines()


def test_the_better_runtime_is_judged_by_its_batch_and_torch_by_its_own_bar() -> None:
    times = {
        1: {"eager": 1.6, "onnxruntime": 1.2, "openvino": 1.8},
        16: {"eager": 1.5, "onnxruntime": 1.8, "openvino": 1},
    }
    rows = [
        row(runtime, batch, faster)
        for batch, by_runtime in times.items()
        for runtime, value in by_runtime.items()
        for faster in (None, value)
    ]
    lines = table(rows=rows, left_out={"16": "can't be reached"})
    assert lines[2] == "| `net` | 8 | 2.00 | 1 | 1.60 (80%) | 1.20 (60%) | 1.80 (90%) | 88% met; 80% in torch met |"
    assert lines[3].endswith("| 16 | 1.50 (75%) | 1.80 (90%) | 1.00 (50%) | 95% **missed**; 80% in torch **missed** |")
    assert lines[4].startswith("| `net` | 16 | can't be reached |")
    assert len({line.count("|") for line in lines[:5]}) == 1
    assert lines[-1].startswith("2 of 4 bars are met.")
