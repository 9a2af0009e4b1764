"""The script that looks at what a second thread is worth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.cost import threads


@pytest.mark.slow
@pytest.mark.long
def test_every_network_and_number_of_threads_has_its_figures(tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    threads.main(["--model", "src8", "--batch", "2", "--threads", "1", "2", "--rounds", "1", "--output", str(output)])
    found = json.loads(output.read_text())["by_threads"]
    assert list(found) == ["1", "2"]
    for of_threads in found.values():
        assert set(of_threads) == {"unpruned", "narrow, any widths", "narrow, multiples of 8"}
        assert all(of_network["ms"] > 0 for of_network in of_threads.values())
