"""The tutorial's times, as a table."""

from __future__ import annotations

from benchmarks.tutorial_table import tutorial_table


def test_the_blocks_of_a_heading_are_added_up_and_minutes_rounded_up() -> None:
    blocks = [
        {"heading": heading, "seconds": 900.0, "processor_seconds": used}
        for heading, used in (("Train", 50.0), ("Train", 80.0), ("Serve", 2.0))
    ]
    table = tutorial_table(
        {
            "blocks": blocks,
            "photographs": {"train": 30, "val": 10},
            "hardware": {"cpu": "a CPU"},
            "cores": 1,
            "versions": {"torch": "2"},
            "commit": "0123456789abcdef",
        }
    ).splitlines()
    assert table[2:4] == ["| Train | 3 |", "| Serve | 1 |"]
    assert "30 photographs to train on and 10 to test, a CPU, 1 core, torch 2, commit 0123456789." in table[-1]
