"""Units ranked by their price: what the graph counts without each, and scores divided by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rr import ResRepPruner, paper_config
from rr.selection.prices import relative_unit_costs
from tests.rr.networks import Net, conv, head
from tests.rr.pruners import IMAGES, observe


def costly_and_cheap(**settings: object) -> ResRepPruner:
    """`costly` works on 8x8 pixels, `cheap` on 2x2; the rows of `cheap` are a little smaller."""
    torch.manual_seed(0)
    modules = {"costly": conv(1, 6), "a": conv(6, 6), "cheap": conv(6, 6), "b": conv(6, 6), "fc": nn.Linear(6, 3)}

    def forward(net: Net, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(net.a(F.relu(net.costly(x)))), 4)
        return head(net, net.b(F.relu(net.cheap(x))))

    config = paper_config(**{"flops_target": 0.3} | settings, include=("costly", "cheap"), rows_per_update=4)
    pruner = ResRepPruner(Net(forward, **modules), IMAGES, config)
    with torch.no_grad():
        pruner.compactors["cheap"].pwc.weight.mul_(0.9)
    return pruner


def test_costly_rows_go_first_by_price() -> None:
    found = {}
    for per_mac in (False, True):
        pruner = costly_and_cheap(per_mac=per_mac, flops_target=0.8)
        pruner.update_masks()
        found[per_mac] = [int(pruner.compactors[name].mask.sum()) for name in ("costly", "cheap")]
    assert found == {False: [6, 2], True: [4, 6]}


def test_a_price_is_what_the_graph_counts_without_the_unit() -> None:
    pruner = costly_and_cheap()
    graph, candidates = pruner.graph, pruner.candidates
    alive = np.ones(graph.num_units, dtype=bool)
    alive[candidates[[0, 1, 6, 8, 9]]] = False
    expected, groups = [], graph.macs.group_of_unit[candidates]
    for group in groups:
        less = alive.copy()
        less[next(other for other in graph.groups[group].units if alive[other])] = False
        expected.append(graph.macs(alive) - graph.macs(less))
    found = relative_unit_costs(graph.macs, graph.macs.group_widths(alive), groups)
    np.testing.assert_allclose(found, np.array(expected) / np.mean(expected))
    assert found.mean() == pytest.approx(1)


def test_a_group_without_units_costs_what_its_last_one_did() -> None:
    """Also one that a layer both reads and adds into, where the MACs go with the square of its width."""

    class Square:
        @staticmethod
        def of_group_widths(widths: np.ndarray) -> float:
            return float(widths[0] ** 2 + 3 * widths[1])

    groups = np.array([0, 1, 1])
    for width, price in ((0, 1), (1, 1), (5, 9)):
        found = relative_unit_costs(Square(), np.array([width, 4]), groups)
        np.testing.assert_allclose(found, np.array([price, 3, 3]) / ((price + 6) / 3))


@pytest.mark.parametrize("score", ["norm", "taylor"])
def test_prices_divide_either_score(score: str) -> None:
    """Squared ones where these are what adds up."""
    plain, priced = (costly_and_cheap(score=score, per_mac=per_mac) for per_mac in (False, True))
    for pruner in (plain, priced):
        observe(pruner)
    sizes = plain.graph.macs.group_sizes
    costs = relative_unit_costs(plain.graph.macs, sizes, plain.graph.macs.group_of_unit[plain.candidates])
    assert costs[0] > 3 * costs[-1]
    power = 1 if score == "norm" else 2
    np.testing.assert_allclose(priced.candidate_scores() ** power * costs, plain.candidate_scores() ** power, rtol=1e-6)
