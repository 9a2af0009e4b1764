"""Cases of one test that take long together: some of them run with `make test`, the others with `make test-long`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from itertools import product
from typing import Any

import pytest


def all_long_but(cases: Iterable[Hashable], *short: Hashable) -> list[Any]:
    """A test's parameters, marked long where they aren't in `short`; a case of several parameters is a tuple."""
    cases = list(cases)
    assert set(short) < set(cases), f"{set(short) - set(cases)} are no cases, or all are short"
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=() if case in short else pytest.mark.long)
        for case in cases
    ]


def every_value_once(parameters: Mapping[str, Iterable[Hashable]]) -> tuple[str, list[Any]]:
    """All combinations, of which `make test` runs as many as the longest list has, so that each value occurs.

    Args:
        parameters: the values of each parameter of a test.

    Returns:
        What `pytest.mark.parametrize` takes.
    """
    values = [list(of_one) for of_one in parameters.values()]
    count = max(map(len, values))
    short = {
        tuple(of_one[(place + turn) % len(of_one)] for turn, of_one in enumerate(values)) for place in range(count)
    }
    return ",".join(parameters), all_long_but(product(*values), *short)
