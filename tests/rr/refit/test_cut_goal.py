"""A share of the time, found while a network is cut: by a function in the clock's place, so no machine has a say."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import InputError, RefitConfig, prune
from tests.rr.networks import Net, conv, generic, head


def images() -> list[Tensor]:
    """Batches of 16."""
    return list(torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1)).split(16))


def network() -> nn.Module:
    """Two convolutions of 16 channels, each read by one of 8, of which the last has a BN."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.b(F.relu(net.a(net.stem(x))))
        return head(net, net.norm(net.d(F.relu(net.c(x)))))

    torch.manual_seed(0)
    modules = {"stem": conv(3, 8), "a": conv(8, 16), "b": conv(16, 8), "c": conv(8, 16), "d": conv(16, 8)}
    return generic(Net(forward, **modules, norm=nn.BatchNorm2d(8), fc=nn.Linear(8, 4))).eval()


def macs_in(model: nn.Module) -> float:
    """Of the convolutions, but for the places that they are at."""
    return float(sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Conv2d)))


@pytest.mark.slow
@pytest.mark.parametrize(("rounds", "width_multiple"), [(1, None), (2, None), (2, 3)])
def test_a_share_of_the_time_by_a_function_of_ones_own(rounds: int, width_multiple: int | None) -> None:
    """Half of the time is what no width changes: the widths are those of the MACs that this comes to."""
    model, batches = network(), images()
    timed: list[tuple[nn.Module, nn.Module]] = []

    def timing(full: nn.Module, narrow: nn.Module, seconds: float) -> list[float]:
        assert seconds > 0
        assert not any(isinstance(layer, nn.BatchNorm2d) for each in (full, narrow) for layer in each.modules())
        timed.append((full, narrow))
        return [0.5 + 0.5 * macs_in(narrow) / macs_in(full)] * 3

    settings = {} if width_multiple is None else {"width_multiple": width_multiple}
    way = RefitConfig(rounds=rounds)
    slim = prune(
        model, batches[0], batches, refitting=way, include=("a", "c"), latency_target=0.82, timing=timing, **settings
    )
    found = slim.refit_report.latency
    share = 0.5 + 0.5 * macs_in(slim) / macs_in(timed[0][0])
    assert found.median == found.low == found.high == pytest.approx(share)
    assert share == pytest.approx(0.82, rel=0.03)
    assert found.width_multiple == (width_multiple or 4)  # no eighths of 16 channels are near
    assert all(getattr(slim, name).out_channels % found.width_multiple == 0 for name in "ac")
    assert found.macs_share == pytest.approx(0.64, abs=0.06)
    assert len({id(full) for full, _ in timed}) == 1
    assert slim.refit_report.as_dict()["latency"]["asked"] == 0.82
    assert "82.0% was asked for" in str(slim.refit_report)


@pytest.mark.slow
def test_a_share_of_the_time_that_no_width_reaches() -> None:
    def timing(full: nn.Module, narrow: nn.Module, seconds: float) -> list[float]:
        return [0.8 + 0.2 * macs_in(narrow) / macs_in(full)] * 2

    batches = images()
    with pytest.raises(InputError, match=r"latency_target 0.5 can't be reached .*: the least is 8\d.\d% .* MACs"):
        prune(network(), batches[0], batches, latency_target=0.5, timing=timing)
    for wrong in ([0.5], [0.5, float("nan")], [0.0, 0.5]):
        with pytest.raises(InputError, match="a number above 0 for each of at least two rounds"):
            prune(network(), batches[0], batches, latency_target=0.5, timing=lambda *_, wrong=wrong: wrong)
    with pytest.raises(InputError, match="a share of the full network's time"):
        prune(network(), batches[0], batches, latency_target=1.5)
