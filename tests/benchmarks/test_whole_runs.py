"""The table of whole runs: every cell from its file, and the worst of the conversions named."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from benchmarks.whole_runs import accuracy_table, lossless, proof_table

Result = dict[str, Any]


@pytest.fixture
def result() -> Result:
    run = {
        "recipe": {"epochs": 12, "score": "taylor", "width_multiple": 1, "data_dir": "in/some_folder"},
        "seed": 7,
        "processes": 1,
        "threads": 2,
        "hardware": {"cpu": "a CPU", "cores": 4, "gpus": []},
        "versions": {"torch": "2"},
    }
    side = {"val": {"top1": 90.0}, "macs": 1000, "parameters": 200, "threads": {"1": 1, "64": 4}}
    pruned = {"val": {"top1": 89.5}, "macs": 471, "parameters": 50, "threads": {"1": 2, "64": 4}}
    conversion = {"float64_difference": 2e-16, "float32_difference": 3e-7, "cut_difference": 4e-5}
    return {
        "arch": "src20",
        "dataset": "folder",
        "val": {"num": 10000},
        "comparison": {
            "base": side,
            "pruned": pruned,
            "paired": {"points": -0.5, "standard_error": 0.123},
            "speed_up": {"1": 1.234, "64": 1.5},
        },
        "tested": run,
        "pruning": {"run": run, "conversion": conversion, "paired": {"only_first": 1, "only_second": 2}},
        "base_training": {"recipe": {"epochs": 20}},
    }


def test_a_row_has_its_files_figures(result: Result) -> None:
    row = accuracy_table([result]).splitlines()[2]
    assert row == (
        "| `src20`, some folder | `--fast` | 20 + 12 | 90.00% | 89.50% | -0.50 (0.12) | 47.1% | 25.0% | 1.23x | 1.50x |"
    )


def test_rows_are_told_apart_by_their_settings(result: Result) -> None:
    other = copy.deepcopy(result)
    other["pruning"]["run"]["recipe"] |= {"score": "norm", "width_multiple": 8}
    *_, first, second, _, note = accuracy_table([result, other]).splitlines()
    assert "| `--fast` |" in first
    assert "| the paper's rule, `--width-multiple 8` |" in second
    assert "10,000 test images" in note
    assert "a CPU (2 of 4 cores, torch 2)" in note


def test_both_proofs_are_named_with_the_worst_run(result: Result) -> None:
    worse = copy.deepcopy(result)
    worse["pruning"]["conversion"]["float64_difference"] = 5e-13
    words = lossless([result, worse])
    assert "at most 5e-13 in float64 (3e-07 in float32)" in words
    assert "by at most 4e-05" in words
    assert "turns at most 3 right answers of a run" in words


def test_each_proof_stands_beside_its_file(result: Result) -> None:
    row = proof_table(["some"], [result]).splitlines()[2]
    assert row.startswith("| `results/some.json` | 2e-16 | 3e-07 | 4e-05 | 1, 2 | 1 and 2 | 4 and 4 | 7 |")
