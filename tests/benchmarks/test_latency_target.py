"""The rows of the study of time targets: which there are, which are done, and what stands where one can't be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import latency_target
from rr import InputError, Timing

TWO = ("--models", "src56", "--runtimes", "eager", "openvino", "--batch-sizes", "1")


def test_rows_are_written_one_by_one_and_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[Any, ...]] = []

    def row_of(*row: Any) -> dict[str, Any]:
        if len(done) == 1 and not (tmp_path / "may go on").exists():
            raise KeyboardInterrupt
        done.append(row)
        return {"found": {}}

    monkeypatch.setattr(latency_target, "row_of", row_of)
    output = tmp_path / "latency_target.json"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        latency_target.main([*TWO, "--output", str(output)])
    assert len(json.loads(output.read_text())["rows"]) == 1
    (tmp_path / "may go on").touch()
    latency_target.main([*TWO, "--output", str(output)])
    assert done == [("src56", Timing("eager"), 0.7), ("src56", Timing("openvino"), 0.7)]
    assert [row["runtime"] for row in json.loads(output.read_text())["rows"]] == ["eager", "openvino"]


@pytest.mark.slow
def test_what_cannot_be_reached_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def prune(*_: object, **__: object) -> torch.nn.Module:
        raise InputError("latency_target 0.1 can't be reached")

    monkeypatch.setattr(latency_target, "prune", prune)
    found = latency_target.row_of("src56", Timing(), 0.1)
    assert found == {"image_size": 32, "error": "latency_target 0.1 can't be reached"}
