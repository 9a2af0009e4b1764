"""Rows' norms as bytes, and back."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.row_norms import decoded, encoded


def test_norms_come_back_within_half_a_step() -> None:
    norms = np.array([0.0, 1e-30, 1e-8, 3e-6, 0.02, 1.0, 100.0, 1e9, np.inf])
    found = decoded(encoded(norms))
    assert found[[0, -1]].tolist() == [-np.inf, np.inf]
    assert found[1:-1] == pytest.approx(np.clip(np.log10(norms[1:-1]), -8, 2.12), abs=0.0201)


def test_what_is_no_base64_is_no_norms() -> None:
    with pytest.raises(ValueError, match="padding"):
        decoded("AQ=")


@pytest.mark.filterwarnings("error")
def test_what_is_not_a_number_is_not_taken_for_a_dead_row() -> None:
    assert decoded(encoded(np.array([np.nan, 1.0])))[0] == pytest.approx(2.12)
