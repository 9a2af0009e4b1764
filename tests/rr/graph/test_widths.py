"""Least widths, to the unit."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from rr.graph.widths import floors


@pytest.mark.parametrize("percent", [0, 1, 10, 25, 30, 70, 99, 100])
def test_a_share_is_rounded_up_and_no_further(percent: int) -> None:
    """0.1 * 30 is a little over 3 in floating point, and 0.07 * 100 a little over 7."""
    sizes = np.arange(1, 200)
    exact = [max(1, math.ceil(Fraction(percent, 100) * size)) for size in sizes.tolist()]
    assert floors(sizes, 0, percent / 100).tolist() == exact
    assert floors(sizes, 5, percent / 100).tolist() == np.maximum(exact, 5).tolist()
