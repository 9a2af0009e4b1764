"""The narrow networks of the rivals: widths, weights, and what is cut."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from base_model import build_model, full_widths
from benchmarks.studies import cuts
from benchmarks.studies.cuts import INNER, convolutions, cut, cut_by_torch_pruning, uniform_widths, widths_of
from data import Data
from tests.benchmarks.studies.helpers import inner_convolutions
from training import count_macs

IMAGE = torch.zeros(1, 1, 8, 8)


def images(number: int = 5) -> torch.Tensor:
    return torch.randn(number, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def silence(model: nn.Module, name: str, channels: torch.Tensor) -> None:
    """Make these channels of an inner convolution 0 behind its BN."""
    norm = model.get_submodule(name.removesuffix("conv") + "bn")
    with torch.no_grad():
        norm.weight[channels] = 0
        norm.bias[channels] = 0


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.2, 0.47, 0.9])
def test_l1_has_one_share_of_filters_and_the_largest_that_fits(data: Data, target: float) -> None:
    widths, full = uniform_widths("src20", data, target), full_widths("src20")
    limit = target * count_macs(build_model("src20", in_channels=1), IMAGE)
    pruned = [index for index, pair in enumerate(zip(widths, full, strict=True)) if pair[0] < pair[1]]
    names = [name for name, _ in convolutions(build_model("src20"))]
    assert [names[index] for index in pruned] == [name for name in names if INNER.search(name)]
    assert len(pruned) == 9
    least = max((widths[index] - 0.5) / full[index] for index in pruned)
    most = min((widths[index] + 0.5) / full[index] for index in pruned)
    assert least <= most  # one share rounds to all of these widths
    assert count_macs(build_model("src20", widths, in_channels=1), IMAGE) <= limit
    larger = [
        width + ((width + 0.5) / whole == most) if index in pruned else width
        for index, (width, whole) in enumerate(zip(widths, full, strict=True))
    ]
    assert larger != widths
    assert count_macs(build_model("src20", larger, in_channels=1), IMAGE) > limit


def test_a_target_under_one_filter_each_is_refused(data: Data) -> None:
    with pytest.raises(ValueError, match="can't be reached"):
        uniform_widths("src20", data, 0.01)


@pytest.mark.slow
def test_l1_keeps_the_filters_with_the_largest_norms_and_all_their_numbers(network: nn.Module, data: Data) -> None:
    narrow = cut("l1", "src20", network, data, 0.47).double().eval()
    for name, conv in inner_convolutions(network):
        norms = [kernel.abs().sum().item() for kernel in conv.weight.detach()]
        width = narrow.get_submodule(name).out_channels
        silence(network, name, torch.tensor(sorted(range(len(norms)), key=norms.__getitem__)[:-width]))
    with torch.no_grad():
        assert torch.allclose(narrow(images()), network(images()), rtol=0, atol=1e-5)  # it was built in float32


@pytest.mark.slow
def test_scratch_has_the_widths_of_l1_and_none_of_its_weights(network: nn.Module, data: Data) -> None:
    narrow, other = (cut(how, "src20", network, data, 0.47) for how in ("l1", "scratch"))
    assert widths_of(narrow) == widths_of(other)
    assert not any(
        torch.equal(a.weight, b.weight)
        for (_, a), (_, b) in zip(convolutions(narrow), convolutions(other), strict=True)
    )


@pytest.mark.long
def test_torch_pruning_cuts_inner_layers_alone_and_dead_channels_first(network: nn.Module, data: Data) -> None:
    network = network.float()
    generator = torch.Generator().manual_seed(3)
    dead = {}
    for name, conv in inner_convolutions(network):
        dead[name] = torch.randperm(conv.out_channels, generator=generator)[: conv.out_channels * 6 // 10]
        silence(network, name, dead[name])
        with torch.no_grad():
            conv.weight[dead[name]] *= 1e-3  # not 0: what is equal goes at once
            network.get_submodule(name.replace("conv1.conv", "conv2.conv")).weight[:, dead[name]] *= 1e-3
    with torch.no_grad():
        before = network(images().float())
    narrow = cut_by_torch_pruning(network, data, 0.47).eval()
    limit = 0.47 * count_macs(build_model("src20", in_channels=1), IMAGE)
    assert 0.97 * limit < count_macs(narrow, IMAGE) <= limit
    for (name, conv), whole in zip(convolutions(narrow), full_widths("src20"), strict=True):
        assert (conv.out_channels < whole) == (name in dead), name
    with torch.no_grad():
        assert torch.allclose(narrow(images().float()), before, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_taylor_cuts_the_inner_layers_to_the_target(
    network: nn.Module, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuts, "SCORED", (2, 8))
    network = network.float().train()
    narrow = cut("taylor", "src20", network, data, 0.6)
    assert 0.5 < count_macs(narrow, IMAGE) / count_macs(network, IMAGE) <= 0.6
    full = dict(convolutions(network))
    changed = {name for name, conv in convolutions(narrow) if conv.out_channels < full[name].out_channels}
    assert changed <= {name for name, _ in inner_convolutions(network)}
    assert network.training
