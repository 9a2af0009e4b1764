"""Parameter groups with the paper's settings, of models with compactors and without."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from base_model import build_model
from rr import ResRepPruner, param_groups
from tests.rr.networks import tiny


@pytest.mark.slow
def test_parameter_groups_have_the_papers_settings() -> None:
    model = build_model("src20")
    pruner = ResRepPruner(model, torch.zeros(1, 3, 16, 16))
    model.stage1.conv1.conv.weight.requires_grad_(False)
    found = {}
    for group in pruner.param_groups(lr=0.01, momentum=0.9, weight_decay=1e-4):
        for parameter in group["params"]:
            assert parameter not in found
            found[parameter] = (group["lr"], group["momentum"], group["weight_decay"])
    names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert found.keys() == names.keys()
    for parameter, name in names.items():
        if "compactor" in name:
            assert found[parameter] == (0.01, 0.99, 0.0)
        elif name.endswith("bias"):
            assert found[parameter] == (0.02, 0.9, 0.0)
        else:
            assert found[parameter] == (0.01, 0.9, 0.0 if ".bn." in name else 1e-4)


def test_parameter_groups_of_a_plain_model_and_shared_parameters() -> None:
    model = tiny(bias=True)
    model.append(model[-1])
    groups = param_groups(model, lr=0.1, momentum=0.8, weight_decay=0.5, bias_lr_factor=3.0)
    held = [parameter for group in groups for parameter in group["params"]]
    assert len(held) == len(set(held)) == len(list(model.parameters()))
    assert [group["lr"] for group in groups] == pytest.approx([0.1, 0.1, 0.3])
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0, 0.0]
    torch.optim.SGD(groups)


def test_groups_have_the_names_of_their_kinds_and_none_is_empty() -> None:
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.SyncBatchNorm(4), nn.Linear(4, 2, bias=False))
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
    groups = {group["name"]: group["params"] for group in param_groups(model, **settings)}
    assert list(groups) == ["weights", "norms", "biases"]
    assert groups["norms"] == [model[1].weight, model[2].weight]
    assert groups["biases"] == [model[0].bias, model[1].bias, model[2].bias]
    model[1:3].requires_grad_(False)
    model[0].bias.requires_grad_(False)
    assert [group["name"] for group in param_groups(model, **settings)] == ["weights"]


def test_a_weight_of_two_layers_is_in_one_group_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    groups = param_groups(model, lr=0.1, momentum=0.9, weight_decay=1e-4)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters())) == 3


def test_biases_learn_at_twice_the_rate() -> None:
    rates = {group["name"]: group["lr"] for group in param_groups(tiny(), lr=0.1, momentum=0.9, weight_decay=0.0)}
    assert rates == {"weights": 0.1, "norms": 0.1, "biases": 0.2}
