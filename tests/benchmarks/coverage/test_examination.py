"""Whole examinations of tiny networks, and what prepares a network for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.coverage.examination import examine, fitting_sizes, randomised
from benchmarks.coverage.figures import BARS, proven
from benchmarks.coverage.network import images


@pytest.mark.slow
def test_a_network_is_examined(tiny: Path) -> None:
    found = examine(f"{tiny}:build", most_parameters=10_000)
    assert found["bars"] == dict.fromkeys(BARS, True)
    assert (found["kind"], found["family"]) == ("cnn", "classifiers")
    assert (found["units"], found["prunable_units"], found["layers"]) == (21, 16, 5)
    assert [item["units"] for item in found["stays"]] == [4, 1]
    assert set(found["differences"]) == {"1 x 3 x 64 x 64", "2 x 3 x 96 x 96"}
    assert 0 < found["dropped"] < 16
    assert found["half"]["macs_ratio"] == found["half"]["macs_ratio_counted"] <= 0.5
    json.dumps(found)


def test_a_large_network_is_only_traced(tiny: Path) -> None:
    found = examine(f"{tiny}:build", most_parameters=10)
    assert found["prunable_units"] == 16
    assert "too large" in found["not_run"]
    assert found["bars"] == dict.fromkeys(BARS)


@pytest.mark.slow
def test_a_network_that_needs_much_memory_is_postponed(tiny: Path) -> None:
    compactors = 2 * 8 * 8
    plain = (3 * 9 * 8 + 8) + 16 + (8 * 9 * 8 + 8) + 16 + (8 * 4 + 4)
    assert examine(f"{tiny}:build", 10_000, most_bytes=1000) == {"postponed": 16 * (plain + compactors)}
    assert "postponed" not in examine(f"{tiny}:build", 10_000, most_bytes=16 * (plain + compactors))


def test_attention_is_a_product_of_activations_and_not_a_softmax(tiny: Path) -> None:
    gated = examine(f"{tiny}:gated", most_parameters=0)
    attends = examine(f"{tiny}:attends", most_parameters=0)
    assert (gated["kind"], attends["kind"]) == ("cnn", "transformer")
    assert any("matmul" in item["cause"] for item in attends["stays"])


def test_causes_name_no_layer_but_for_example(tiny: Path) -> None:
    stays = {item["cause"]: item for item in examine(f"{tiny}:gated", most_parameters=0)["stays"]}
    cause = next(cause for cause in stays if "softmax" in cause)
    assert " in a layer" in cause
    assert stays[cause]["example"] == cause.replace(" in a layer", " in 0")
    assert stays["a channel of the network's output"]["units"] == 4


def test_a_network_that_cannot_be_run_is_a_failure_and_no_crash(tiny: Path) -> None:
    found = examine(f"{tiny}:refuses", most_parameters=10_000)
    assert found["failed"].startswith("InputError: takes inputs of none of the 4 pairs")
    assert found["failed"].endswith("RuntimeError: not | today")
    assert not proven(found)


def test_nothing_begins_as_a_constant() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.norm, self.batch_norm = nn.Linear(8, 8), nn.LayerNorm(8), nn.BatchNorm1d(8)
            self.scale, self.gain = nn.Parameter(1e-6 * torch.ones(8)), nn.Parameter(torch.zeros(()))
            self.head = nn.Linear(8, 8)
            nn.init.zeros_(self.head.weight)

    torch.manual_seed(0)
    model = Scaled()
    drawn = model.inner.weight.clone()
    randomised(model)
    assert torch.equal(model.inner.weight, drawn)
    assert all(len(value.unique()) == 8 for name, value in model.named_parameters() if value.dim() == 1)
    assert 0.5 <= model.gain.item() <= 1.5
    assert model.head.weight.std() > 0.01
    assert (model.batch_norm.weight < 0).any()
    assert (model.scale.abs() >= 0.5).all()


def test_sizes_that_a_network_takes() -> None:
    class Takes(nn.Module):
        def __init__(self, *sizes: int) -> None:
            super().__init__()
            self.sizes = sizes

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[-1] in self.sizes
            return x

    pairs = images((64, 96), (299, 331), (224, 224))
    assert fitting_sizes(Takes(64, 96), pairs) == (((3, 64, 64),), ((3, 96, 96),))
    assert fitting_sizes(Takes(299, 331, 224), pairs) == (((3, 299, 299),), ((3, 331, 331),))
    assert fitting_sizes(Takes(64, 224), pairs) == (((3, 224, 224),),) * 2
    with pytest.raises(ValueError, match=r"none of the 3 pairs of sizes .* AssertionError"):
        fitting_sizes(Takes(32), pairs)


@pytest.mark.slow
def test_networks_of_several_inputs_and_outputs_are_examined() -> None:
    """Two images, two embeddings; and three outputs of different shapes by name."""
    for name, shape in (("own/siamese", "2 x 3 x 48 x 40"), ("own/multi_task", "2 x 3 x 48 x 48")):
        found = examine(name, most_parameters=1_000_000)
        assert found["bars"] == dict.fromkeys(BARS, True), name
        assert found["family"] == "other"
        assert shape in found["differences"]
