"""The search with random networks: what it counts, and that a failure ends it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.coverage import random_search

STATISTICS = """
  - during generate phase (6.65 seconds):
    - 95 passing, {failing} failing, and 3 invalid test cases
    - Events:
      * 60.00%, conv bn
      * 7.14%, a layer is gone
"""


def test_hypothesis_counts_what_passed_and_what_was_met() -> None:
    passed, events = random_search.counts(STATISTICS.format(failing=0))
    assert passed == 95
    assert events == {"conv bn": 60, "a layer is gone": 7}


@pytest.mark.long
def test_real_statistics_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this version of Hypothesis prints."""
    monkeypatch.setattr(random_search, "EACH", 2)
    code, text = random_search.run_of(0)
    passed, events = random_search.counts(text)
    assert (code, passed) == (0, 2)
    assert events


@pytest.mark.parametrize("fails", [False, True])
def test_runs_follow_each_other_until_one_fails(fails: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = iter(range(0, 1000, 40))  # seconds
    monkeypatch.setattr(random_search, "monotonic", lambda: next(clock))
    monkeypatch.setattr(random_search, "run_of", lambda seed: (int(fails), STATISTICS.format(failing=int(fails))))
    output = tmp_path / "found.json"
    arguments = ["--minutes", "4", "--seed", "5", "--output", str(output)]
    if fails:
        with pytest.raises(SystemExit, match="1"):
            random_search.main(arguments)
    else:
        random_search.main(arguments)
    found = json.loads(output.read_text())
    assert found["seeds"] == ([5] if fails else [5, 1005, 2005])
    assert found["networks"] == 95 * len(found["seeds"])
    assert ("failure" in found) == fails
    assert found["events"]["conv bn"] == 60 * len(found["seeds"])
