"""The table of robustness: each cell from its own figure."""

from __future__ import annotations

from typing import Any

from benchmarks.robustness_table import robustness_table

MADE = {"hardware": {"cpu": "a CPU"}, "versions": {"torch": "2.14"}, "commit": "0123456789abcdef"}


def of(**summary: Any) -> dict[str, Any]:
    return {"made": MADE, "summary": summary}


def test_each_cell_is_its_own_figure() -> None:
    counts = {"kills": 7, "unequal": 1, "not_ended": 2, "left_behind": 3, "most_steps_redone": 4}
    crash = of(by_place={"a file event": 5, "refit": 2}, checkpoint_interval=6, **counts)
    two_hosts = {"made": MADE, "equal": False, "seconds_to_the_end": 36.6}
    fuzz = of(inputs=1000, refused=900, read=99, escaped=1)
    soak = of(steps=2000, mib_per_1000_steps=-0.02, files_least=5, files_most=6, checkpoint_share=0.0123)
    rows = [row.strip("| ").split(" | ") for row in robustness_table(crash, two_hosts, fuzz, soak).splitlines()]
    assert rows[2][:2] == ["killed: a file event", "5"]
    assert rows[3][:2] == ["killed: refit", "2"]
    assert rows[4][1] == "7 runs"
    for words in ("1 with other", "2 that didn't end", "3 half-written", "at most 4 steps", "every 6)"):
        assert words in rows[4][2]
    assert "37 s" in rows[5][2]
    assert "OTHER WEIGHTS" in rows[5][2]
    assert rows[6][1:3] == ["1,000 files", "900 refused in a line, 99 read, 1 that did anything else"]
    assert rows[7][1:3] == [
        "2,000 steps",
        "-0.02 MiB per 1,000 steps, 5 to 6 open files, 1.23% of the time for checkpoints",
    ]
