"""The tables of small measurements: what stands in their files, and what measured it."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.cost.tables import communication_table, cpu_use_table, loading_table, method_table, threads_table

AROUND = {
    "processes": 2,
    "threads": 1,
    "hardware": {"cpu": "a CPU", "cores": 2, "gpus": []},
    "versions": {"torch": "2"},
}


@pytest.fixture
def method() -> dict[str, Any]:
    step = {"arch": "src56", "batch": 64, "precision": "float32", "ms_with": 300.0, "ms_of_reset_and_penalty": 0.4}
    return {
        "step": {**step, "ratio": 1.14, "ratio_quartiles": [1.1, 1.2], "bar": 1.15},
        "mask_update": {"arch": "sres50", "candidates": 7552, "macs_ratio": 0.5, "ms": 5.7, "bar_ms": 10},
        "fold": {"arch": "sres50", "seconds": 0.2, "bar_seconds": 0.5, "trace_and_plan_seconds": 1.0},
        "augment": {"images": 64, "ms": 0.49, "bar_ms": 2.8},
        **AROUND,
    }


def test_the_methods_parts_stand_beside_their_bars(method: dict[str, Any]) -> None:
    text = method_table(method)
    assert "| 1.14 (quartiles 1.10, 1.20) | 1.15 |" in text
    assert "7,552 rows, 50% of MACs | 5.7 ms | 10 ms |" in text
    assert text.endswith("`results/method_cost.json`: a CPU, 2 of 2 cores, torch 2.")


def test_shares_of_several_processes_steps() -> None:
    of_one = {"processes": 2, "step_ms": 136.4, "share_of_exchange": 0.0241, "share_of_pruner": 0.005}
    assert "| `src20` | 2 | 136 ms | 2.4% | 0.5% |" in communication_table({"models": {"src20": of_one}, **AROUND})


def test_what_was_chosen_on_a_cpu_stands_beside_the_bars() -> None:
    choice = {"processes": 2, "threads": 1, "amp": True, "channels_last": True, "compile": False}
    of_run = {"choice": choice, "start_images_per_s": 500.4, "end_images_per_s": 700.0, "seconds": 99.6}
    results = {"rounds": [{"pruned": of_run}], "bars": {"start": 4.0, "end": 6.0, "whole": 0.9}, **AROUND}
    text = cpu_use_table({**results, "start": [4.21], "end": [6.5], "whole": [0.85]})
    assert "| 1 | pruned | 2 x 1 threads, bfloat16, channels-last | 500 | 700 | 100 |" in text
    assert "4.21 times faster than the first implementation's at the start (bar 4), 6.50 times at the end (bar" in text


def test_kinds_of_operations_with_one_thread_and_with_two() -> None:
    def of(ms: float, norm: float) -> dict[str, Any]:
        return {"narrow": {"ms": ms, "kinds": {"batch norm": norm, "casts": 0.2}}}

    norms = {"7": {"1": {"forward": 3.0, "backward": 4.9}, "2": {"forward": 2.2, "backward": 25.04}}}
    threads = {"1": of(250.0, 80.0), "2": of(275.0, 40.0)}
    text = threads_table({**AROUND, "processes": 1, "by_threads": threads, "batch_norm": norms})
    assert "| narrow | a step | 250 ms | 275 ms | 1.10 |" in text
    assert "| narrow | batch norm | 80 ms | 40 ms | 0.50 |" in text
    assert "casts" not in text
    assert "| 7 | 3.0 ms | 2.2 ms | 4.9 ms | 25.0 ms |" in text


def test_the_loader_over_each_network() -> None:
    kind = {"images": 50000, "batch": 128, "images_per_s": 125855.3}
    networks = {"src20": {"images_per_s": 1020.0, "loader_times_faster": 123.4}}
    results = {"small images": {**kind, "networks": networks}, "photographs": {**kind, "networks": {}}, **AROUND}
    assert "| 50,000 small images, batch 128 | 125,855 | `src20` | 1,020 | 123x |" in loading_table(results)
