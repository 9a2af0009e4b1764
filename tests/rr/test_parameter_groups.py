"""Parameter groups with the paper's settings, of models with compactors and without."""

from __future__ import annotations

import pytest
import torch

from base_model import build_model
from rr import ResRepPruner, param_groups
from tests.rr.networks import tiny


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
