"""Channels that are taken by their places."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr.conversion import convert
from rr.graph import ChannelGraph, LiveModel
from rr.narrowing.take_out import silent_units
from rr.weights import load_converted, save_converted
from tests.rr.flows import Case, behind_b, check_exact, check_unprunable
from tests.rr.networks import Net, conv, generic, insert_generic_compactors, random_alive


class Chosen(nn.Module):
    """Channels at the places that a buffer holds."""

    def __init__(self, *places: int) -> None:
        super().__init__()
        self.register_buffer("places", torch.tensor(places))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.places]


# What b reads, and the layers whose outputs may all be pruned.
EXACT: dict[str, Case] = {
    "permuted": (behind_b(lambda net, x: net.p(net.a(x))), {"p": Chosen(3, 1, 0, 2, 7, 6, 4, 5)}, "a b"),
    "some of them, one twice, one from behind": (
        behind_b(lambda net, x: net.p(net.a(x)) + net.c(x)),
        {"p": Chosen(3, 1, 3, -1), "c": conv(3, 4), "b": conv(4, 6)},
        "a b c",
    ),
    "by index_select, of another type, before a norm and groups": (
        behind_b(lambda net, x: net.g(F.relu(net.n(net.a(x).index_select(1, net.p.places.int()))))),
        {"p": Chosen(3, 1, 0, 2, 7, 6, 4, 5), "n": nn.BatchNorm2d(8), "g": conv(8, 8, 1, groups=4)},
        "a b",
    ),
    "the same places twice": (
        behind_b(lambda net, x: net.p(F.relu(net.p(net.a(x))))),
        {"p": Chosen(1, 0, 3, 2, 5, 4, 7, 6)},
        "a b",
    ),
    "rows": (behind_b(lambda net, x: net.a(x)[:, :, torch.tensor([4, 0, 1])]), {}, "a b"),
    "features": (
        lambda net, x: net.fc(net.p(net.b(F.relu(net.a(x))).mean((2, 3)))),
        {"p": Chosen(5, 0, 2), "fc": nn.Linear(3, 2)},
        "a b",
    ),
}

# What b reads, and the layers of whose outputs none may be pruned.
UNPRUNABLE: dict[str, Case] = {
    "by written places": (behind_b(lambda net, x: net.a(x)[:, [2, 1, 0, 3, 4, 5, 6, 7]]), {}, "a"),
    "by places that are a factor, too": (
        behind_b(lambda net, x: net.p(net.a(x)) * net.p.places.sum()),
        {"p": Chosen(3, 1, 0, 2, 7, 6, 4, 5)},
        "a",
    ),
    "by the same places at two widths": (
        behind_b(lambda net, x: torch.cat([net.p(net.a(x)), net.p(net.c(x))], 1)),
        {"p": Chosen(1, 0), "c": conv(3, 6), "b": conv(4, 6)},
        "a c",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", EXACT)
def test_chosen_channels_are_pruned_exactly(case: str) -> None:
    check_exact(*EXACT[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", UNPRUNABLE)
def test_places_that_no_buffer_holds_for_this_alone_keep_their_channels(case: str) -> None:
    check_unprunable(*UNPRUNABLE[case])


def test_the_narrow_network_has_places_of_its_own_also_after_loading(tmp_path: Path) -> None:
    torch.manual_seed(0)
    full = EXACT["permuted"]
    model, images = generic(Net(full[0], a=conv(3, 8), b=conv(8, 6), fc=nn.Linear(6, 2), **full[1])).eval(), IMAGES
    graph = ChannelGraph(model, images)
    assert not silent_units(graph, model)[graph.layers["a"].out_units].any()  # they stay in mid-run
    alive = random_alive(graph, graph.prunable, 0.5, seed=1)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, _ = convert(LiveModel(model, graph), images)
    assert sorted(slim.p.places.tolist()) == list(range(slim.a.out_channels)) != list(range(8))
    save_converted(tmp_path / "slim.hdf5", slim)
    loaded = load_converted(
        tmp_path / "slim.hdf5", Net(full[0], a=conv(3, 8), b=conv(8, 6), fc=nn.Linear(6, 2), p=Chosen(*range(8)))
    )
    torch.testing.assert_close(loaded(images), slim(images))


IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
