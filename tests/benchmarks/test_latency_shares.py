"""The study of promised and measured times: which networks are timed, what can't be had, and what is written."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from benchmarks import latency_shares
from rr import InputError


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Nothing is pruned and nothing is timed: the names of the files that would be."""
    found: list[list[str]] = []

    def prune(full: nn.Module, *_: object, width_multiple: int, **__: object) -> nn.Module:
        if width_multiple == 16:
            raise InputError("flops_target 0.47 can't be reached")
        return full

    def rows(_: str, networks: Mapping[str, nn.Module], *__: object) -> list[dict[str, Any]]:
        found.append(list(networks))
        return [{"model": file, "times_faster": 1.5} for file in networks]

    monkeypatch.setattr(latency_shares, "prune", prune)
    monkeypatch.setattr(latency_shares, "rows_by_the_tool", rows)
    return found


def test_a_network_is_timed_once_and_every_row_is_in_both_files(tmp_path: Path, timed: list[list[str]]) -> None:
    output = tmp_path / "latency.json"
    for _ in range(2):
        latency_shares.main(["--models", "src56", "--output", str(output)])
    assert timed == [["src56.hdf5", "src56_1.hdf5", "src56_8.hdf5"]]
    found = json.loads(output.read_text())["networks"]["src56"]
    assert found["left_out"] == {"16": "flops_target 0.47 can't be reached"}
    assert [row["width_multiple"] for row in found["rows"]] == ["", 1, 8]
    rows = list(csv.DictReader((tmp_path / "latency.csv").read_text().splitlines()))
    assert [row["model"] for row in rows] == timed[0]
