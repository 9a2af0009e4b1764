"""The lists of networks: names, packages, and that our own take what they say they take."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from benchmarks.coverage.figures import CLASSIFIERS, SERIES, series
from benchmarks.coverage.network import inputs_of
from benchmarks.coverage.networks import FAMILY_NAMES, PACKAGES, family_of, missing_packages, names, network
from benchmarks.coverage.tables import WORDS

EVERY = [name for family in FAMILY_NAMES for name in names(family)]
OWN = [name for name in EVERY if name.startswith("own/")]


def test_every_network_stands_there_once_and_knows_its_family() -> None:
    assert len(EVERY) == len(set(EVERY))
    assert all(family_of(name) == family for family in FAMILY_NAMES for name in names(family))
    assert family_of("my/network.py:build") == CLASSIFIERS
    assert tuple(WORDS) == FAMILY_NAMES


def test_classifiers_have_a_series() -> None:
    classifiers = names(CLASSIFIERS)
    assert {series(name) for name in classifiers} <= set(SERIES)
    assert 60 <= sum(name.startswith("timm/") for name in classifiers) <= 90


def test_a_name_tells_the_package() -> None:
    sources = {name.partition("/")[0] for name in EVERY}
    assert sources <= {*PACKAGES, "torchvision", "own"}
    assert missing_packages(["own/rt_detr", "torchvision/resnet18", "src20", "my/network.py:build"]) == {}


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "smp", ("no_such_module", "no-such-package"))
    assert missing_packages(["smp/fpn-resnet18", "own/edsr"]) == {"no-such-package": ["smp/fpn-resnet18"]}


@pytest.mark.parametrize("source", ["timm", "pytorchcv"])
def test_packages_have_the_networks_of_the_lists(source: str) -> None:
    if importlib.util.find_spec(source) is None:
        pytest.skip(f"needs {source}")
    theirs = [name.partition("/")[2] for name in EVERY if name.startswith(f"{source}/")]
    if source == "timm":
        import timm

        known = set(timm.list_models())
    else:
        from pytorchcv.model_provider import _models

        known = set(_models)
    assert set(theirs) <= known


def test_windowed_networks_begin_at_sizes_that_fill_their_windows() -> None:
    assert network("torchvision/swin_t").sizes[0] == (((3, 224, 224),), ((3, 256, 256),))
    assert network("torchvision/resnet18").sizes[0] == (((3, 64, 64),), ((3, 96, 96),))


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_our_own_take_both_sizes_and_their_loss_reaches_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    chosen = network(name)
    model = chosen.build().train()
    for batch, shapes in enumerate(chosen.sizes[0], start=2):
        loss = chosen.loss(model(*inputs_of(shapes, batch)))
        assert loss.isfinite()
    loss.backward()
    assert [key for key, value in model.named_parameters() if value.grad is None] == []
