"""Operations that write into a part of what others read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch.nn.functional as F
from torch import Tensor

from tests.rr.flows import Case, behind_b, check_unprunable
from tests.rr.networks import Net


def written_in_part(write: Callable[[Tensor], object]) -> Callable[[Net, Tensor], Tensor]:
    """`write` changes a view of what others read."""

    def change(net: Net, x: Tensor) -> Tensor:
        x = net.a(x)
        write(x)
        return F.relu(x)

    return behind_b(change)


# What b reads, and the layers of whose outputs none may be pruned.
UNPRUNABLE: dict[str, Case] = {
    "some channels written": (written_in_part(lambda x: x[:, :4].add_(1.0)), {}, "a"),
    "some rows written": (written_in_part(lambda x: x[:, :, :2].add_(1.0)), {}, "a"),
    "some rows written from themselves": (written_in_part(lambda x: x[:, :, :2].exp_()), {}, "a"),
    "some rows set": (written_in_part(lambda x: x[:, :, :2].fill_(1.0)), {}, "a"),
}


@pytest.mark.parametrize("case", UNPRUNABLE)
def test_what_has_no_rule_is_unprunable_with_a_reason(case: str) -> None:
    check_unprunable(*UNPRUNABLE[case])
