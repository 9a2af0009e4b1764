"""Figures of a model that several tests of coverage share."""

from __future__ import annotations

from typing import Any


def figures(**changes: Any) -> dict[str, Any]:
    """A model's figures that pass every bar, with changes."""
    one = {"float64": 1e-15, "float32": 2e-7, "float32_own": 1e-7}
    return {
        "share_of_macs_that_can_go": 0.9,
        "dropped": 5,
        "float64_difference": 1e-15,
        "differences": {"1 x 3 x 64 x 64": one, "2 x 3 x 96 x 96": dict(one)},
        "half": {"macs_ratio": 0.49, "macs_ratio_counted": 0.49, "float64_difference": 2e-15},
        **dict.fromkeys(("converts_again", "trains", "exports"), True),
        **changes,
    }
