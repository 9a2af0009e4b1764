"""A report's figures, as PNGs in data URIs, drawn once for light and once for dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.run_report.reading import RunFiles

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito
INK = {"light": "#1c2530", "dark": "#e4e9ee"}
LEAST_SPAN = 2.0  # points of accuracy: a narrower axis would make noise look like news


def in_both(draw: Callable[[Figure], None], height: float) -> dict[str, str]:
    """A figure for light and for dark, as data URIs.

    Args:
        draw: draws on an empty figure.
        height: in inches; the width is 7.
    """
    return {scheme: _uri(draw, height, ink) for scheme, ink in INK.items()}


def draw_curves(figure: Figure, runs: Sequence[RunFiles]) -> None:
    """Accuracy, loss and MACs over epochs, a colour for each run; one legend."""
    accuracy, loss, macs = figure.subplots(1, 3)
    for run, colour in zip(runs, _colours(runs), strict=True):
        accuracy.plot(*run.curve("val", "top1"), color=colour, label=_literal(run.name))
        loss.plot(*run.curve("val", "loss"), color=colour)
        epochs, shares = run.curve("scalars", "MACs/remaining")
        macs.plot(epochs, [100 * share for share in shares], color=colour)
    low, high = accuracy.get_ylim()
    if high - low < LEAST_SPAN:
        accuracy.set_ylim((low + high - LEAST_SPAN) / 2, (low + high + LEAST_SPAN) / 2)
    for axes, title in ((accuracy, "top-1, validation (%)"), (loss, "loss, validation"), (macs, "MACs left (%)")):
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    macs.set_ylim(0, 105)
    if len(runs) > 1:
        figure.legend(loc="outside lower center", ncols=2, frameon=False)


def draw_forgetting(figure: Figure, run: RunFiles) -> None:
    """Each layer's channels that aren't masked, as a share of the first epoch's, over epochs."""
    names = [name for name in run.epochs[-1]["scalars"] if name.startswith("width/")]
    curves = [run.curve("scalars", name) for name in names]
    epochs = curves[0][0]
    axes = figure.add_subplot()
    shares = [[width / max(widths) for width in widths] for _, widths in curves]
    image = axes.imshow(
        shares, aspect="auto", vmin=0, vmax=1, cmap="cividis", extent=(epochs[0], epochs[-1] + 1, len(names), 0)
    )
    labels = [_literal(name.removeprefix("width/")) for name in names]
    axes.set_yticks([row + 0.5 for row in range(len(names))], labels, fontsize=6, parse_math=False)
    axes.set_xlabel("epoch")
    figure.colorbar(image, ax=axes, label="share of channels not masked")


def has_forgetting(run: RunFiles) -> bool:
    """Whether the run's epochs tell how wide the masks leave each layer."""
    return bool(run.epochs) and any(name.startswith("width/") for name in run.epochs[-1].get("scalars", {}))


def _uri(draw: Callable[[Figure], None], height: float, ink: str) -> str:
    figure = Figure(figsize=(7, height), layout="constrained")
    draw(figure)
    for axes in figure.axes:
        _in_ink(axes, ink)
    for legend in figure.legends:
        for text in legend.get_texts():
            text.set(color=ink, parse_math=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=144, transparent=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _in_ink(axes: Axes, ink: str) -> None:
    axes.tick_params(colors=ink, labelsize=7)
    axes.title.set_color(ink)
    axes.xaxis.label.set(color=ink, fontsize=8)
    axes.yaxis.label.set(color=ink, fontsize=8)
    for side in axes.spines.values():
        side.set_color(ink)


def _colours(runs: Sequence[RunFiles]) -> list[str]:
    return [PALETTE[place % len(PALETTE)] for place in range(len(runs))]


def _literal(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name)
