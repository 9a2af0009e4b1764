"""Widths by layer before and after, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rr.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEFORE, AFTER = "#c9d3dc", "#0072b2"  # grey and the blue of Okabe and Ito: told apart without colour, too
INCHES_PER_LAYER = 0.19


def width_figure(names: Sequence[str], before: Sequence[int], after: Sequence[int]) -> Figure:
    """A bar for each layer: what is left of its channels, in front of what was there.

    Args:
        names: the layers, from the input on.
        before, after: their output channels.

    Raises:
        InputError: where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure  # takes a second to import, and is optional
    except ModuleNotFoundError:
        raise InputError('drawing needs matplotlib: pip install "resrep[report]"') from None
    figure = Figure(figsize=(7.5, 1.2 + INCHES_PER_LAYER * len(names)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(names))
    axes.barh(places, before, color=BEFORE, label="before")
    axes.barh(places, after, height=0.5, color=AFTER, label="after")
    # A layer's name is a person's own: '$' in it begins no formula.
    axes.set_yticks(places, names, fontsize=7, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)  # the input's side is above
    axes.set_xlim(left=0)
    axes.set_xlabel("output channels")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure
