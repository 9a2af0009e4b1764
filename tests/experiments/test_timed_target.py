"""Pruning runs with a target of time, by a stopwatch that counts parameters: no machine has a say in what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from rr import Timing, load_pruned
from rr.latency import goal
from tests.experiments.runs import FAST, prune

WHERE = Timing("openvino", threads=2, batch=3)
ASKED = ("--latency-target", "60%", "--runtime", "openvino", "--latency-threads", "2", "--latency-batch", "3")


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture
def by_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopwatch that goes by parameters."""

    def stopwatch(timing: Timing, shape: tuple[int, ...]) -> Callable[..., list[float]]:
        assert (timing, shape) == (WHERE, (1, 8, 8))
        return lambda full, narrow, _: [parameters(narrow) / parameters(full)] * 2

    monkeypatch.setattr(goal, "Stopwatch", stopwatch)


@pytest.mark.slow
@pytest.mark.usefixtures("by_parameters")
def test_the_macs_are_found_before_the_run_and_again_on_its_own_widths(base_weights: Path, tmp_path: Path) -> None:
    options = [*FAST, "--epochs", "2", *ASKED, "--base-weights", base_weights, "--output-dir", tmp_path / "run"]
    done = prune(*options)
    assert done.returncode == 0, done.stderr
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert (settings["latency_target"], settings["latency_runtime"]) == (0.6, "openvino")
    assert f"is about {settings['flops_target']:.1%} of the MACs" in done.stderr
    assert "the masks' widths take" in done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    found = result["latency"]
    assert found["median"] == pytest.approx(0.6, rel=0.03)
    assert found["macs_share"] == result["conversion"]["macs_ratio"] <= found["flops_target"]
    assert all(layer["width_after"] % settings["width_multiple"] == 0 for layer in pruned_layers(result))
    assert f"the converted network takes {found['median']:.1%} of the full network's time" in done.stderr
    assert load_pruned(tmp_path / "run" / "finish_converted.safetensors").card.proof["latency"] == found

    again = prune(*options, "-c", "continue")
    assert again.returncode == 0, again.stderr
    assert "is about" not in again.stderr  # what it found stands in run.json


def pruned_layers(result: dict) -> list[dict]:
    return [layer for layer in result["conversion"]["layers"] if layer["width_after"] < layer["width_before"]]
