"""Networks by a file's word: which are built, and what a stranger's file can't have run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rr.errors import InputError
from rr.weights import build_named


def test_networks_from_each_place() -> None:
    assert build_named("torchvision/squeezenet1_1", {"num_classes": 7, "image_size": 64}).num_classes == 7
    grey = build_named("timm/test_resnet", {"num_classes": 3, "in_channels": 1, "image_size": 32}).eval()
    assert grey(torch.zeros(1, 1, 32, 32)).shape == (1, 3)
    assert build_named("lenet5bn", {"num_classes": 4}).eval()(torch.zeros(1, 1, 28, 28)).shape == (1, 4)


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("model.py:build", {}),
        ("os:system", {}),
        ("/etc/model.py:f", {}),
        ("torchvision/../x", {}),
        ("torchvision/raft_large", {}),
        ("timm/hf-hub:someone/model", {}),
        ("timm/local-dir:somewhere", {}),
        ("timm/resnet18", {"pretrained": 1}),
        ("timm/resnet18", {"checkpoint_path": "x"}),
        ("torchvision/resnet18", {"num_classes": "10"}),
        ("torchvision/resnet18", {"num_classes": True}),
        ("torchvision/resnet18", {"num_classes": 10**9}),
        ("torchvision/resnet18", {"in_channels": 1}),
    ],
)
def test_nothing_else_is_run(name: str, keywords: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"load_pruned\(FILE, model\)"):
        build_named(name, keywords)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(InputError, match="pip install timm"):
        build_named("timm/resnet18", {})
