"""Operations that write into a part of what others read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rr.graph import ChannelGraph
from tests.rr.flows import Case, behind_b, check_unprunable, three
from tests.rr.networks import Net


def written_in_part(write: Callable[[Tensor], object]) -> Callable[[Net, Tensor], Tensor]:
    """`write` changes a view of what others read."""

    def change(net: Net, x: Tensor) -> Tensor:
        x = net.a(x)
        write(x)
        return F.relu(x)

    return behind_b(change)


def into_another(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    torch.add(x, 1.0, out=out)
    return out


# What b reads, and the layers of whose outputs none may be pruned.
UNPRUNABLE: dict[str, Case] = {
    "some channels written": (written_in_part(lambda x: x[:, :4].add_(1.0)), {}, "a"),
    "some rows written": (written_in_part(lambda x: x[:, :, :2].add_(1.0)), {}, "a"),
    "some rows written from themselves": (written_in_part(lambda x: x[:, :, :2].exp_()), {}, "a"),
    "all written, by another name": (written_in_part(lambda x: x.detach().add_(1.0)), {}, "a"),
    "all written, in a shape": (written_in_part(lambda x: x.expand_as(x).add_(1.0)), {}, "a"),
    "into another tensor": (behind_b(lambda net, x: into_another(net.a(x))), {}, "a"),
    "some rows set": (written_in_part(lambda x: x[:, :, :2].fill_(1.0)), {}, "a"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", UNPRUNABLE)
def test_what_has_no_rule_is_unprunable_with_a_reason(case: str) -> None:
    check_unprunable(*UNPRUNABLE[case])


def test_the_reason_says_that_it_is_written() -> None:
    graph = ChannelGraph(three(written_in_part(lambda x: x.flatten(1).mul_(2.0))), torch.randn(2, 3, 6, 6))
    assert (
        graph.reasons[int(graph.layers["a"].out_units[0])] == "mul in the model writes into a tensor that others read"
    )
