"""A report's figures, as PNGs in data URIs, drawn once for light and once for dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.run_report.reading import RunFiles
from rr.errors import printable

PALETTE = {  # Okabe and Ito, and lighter ones of the same hues on dark paper
    "light": ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    "dark": ("#56b4e9", "#ff9a52", "#3fd0a4", "#e8a9cd", "#f2c14e", "#a6d8f5"),
}
INK = {"light": "#1c2530", "dark": "#e4e9ee"}
WIDTH = {"panel": 3.4, "page": 7.0}  # inches
GONE = {"light": "#ffffff", "dark": "#14191e"}  # rows that were taken out: the page's own colour
FOLDED = {"light": "#c9d1d9", "dark": "#4a5560"}  # and those that are alive in layers whose compactor was folded
LEAST_NORM, MOST_NORM = -6.0, 0.5  # base-10 logarithms: a conversion takes out what is under -5
LEAST_SPAN = 2.0  # points of accuracy: a narrower axis would make noise look like news

Draw = Callable[[Figure, str], None]  # onto an empty figure, for "light" or "dark"


@dataclass(frozen=True)
class Panel:
    """One quantity over a run's epochs.

    Attributes:
        name: of its own file.
        title: what it is, with its unit.
        keys: where a line of metrics.jsonl has it.
        factor: what it is multiplied by.
    """

    name: str
    title: str
    keys: tuple[str, ...]
    factor: float = 1


PANELS = (
    Panel("top1", "top-1, validation (%)", ("val", "top1")),
    Panel("loss", "loss, validation", ("val", "loss")),
    Panel("macs", "MACs left (%)", ("scalars", "MACs/remaining"), 100),
)


@dataclass(frozen=True)
class Picture:
    """A figure, drawn for light and for dark.

    Attributes:
        draw: draws it.
        height: in inches.
        width: a key of WIDTH.
    """

    draw: Draw
    height: float
    width: str = "page"

    @cached_property
    def pngs(self) -> dict[str, bytes]:
        """Both: on white, as the light page is, and on nothing."""
        return {scheme: self._png(scheme) for scheme in INK}

    @property
    def uris(self) -> dict[str, str]:
        """Both as data URIs."""
        return {scheme: f"data:image/png;base64,{base64.b64encode(png).decode()}" for scheme, png in self.pngs.items()}

    def _png(self, scheme: str) -> bytes:
        figure = Figure(figsize=(WIDTH[self.width], self.height), layout="constrained")
        self.draw(figure, scheme)
        for axes in figure.axes:
            _in_ink(axes, INK[scheme])
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=144, transparent=scheme == "dark")
        return file.getvalue()


def has_curve(panel: Panel, runs: Sequence[RunFiles]) -> bool:
    """Whether a run has the quantity."""
    return any(run.curve(*panel.keys)[0] for run in runs)


def draw_panel(figure: Figure, scheme: str, panel: Panel, runs: Sequence[RunFiles]) -> None:
    """A quantity over epochs, a colour for each run: the page has the legend."""
    axes = figure.add_subplot()
    for run, colour in zip(runs, colours(runs, scheme), strict=True):
        epochs, values = run.curve(*panel.keys)
        axes.plot(epochs, [panel.factor * value for value in values], color=colour)
    low, high = axes.get_ylim()
    if "%" in panel.title and high - low < LEAST_SPAN:
        axes.set_ylim((low + high - LEAST_SPAN) / 2, (low + high + LEAST_SPAN) / 2)
    if panel.factor == 100:
        axes.set_ylim(0, 105)
    axes.set_title(panel.title, fontsize=9, loc="left", color=INK[scheme])
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right"]].set_visible(False)


def colours(runs: Sequence[RunFiles], scheme: str) -> list[str]:
    """Each run's, in all of a page's figures."""
    return [PALETTE[scheme][place % len(PALETTE[scheme])] for place in range(len(runs))]


def forgetting(run: RunFiles) -> Picture | None:
    """How channels are forgotten over a run: row by row, or by layer in an older run; None where nothing is pruned."""
    if run.row_norms[0]:
        return Picture(partial(_draw_rows, run=run), min(9.0, 1.2 + 0.3 * len(run.row_norms[1])))
    if run.width_names:
        return Picture(partial(_draw_shares, run=run), 1.0 + 0.16 * len(run.width_names))
    return None


def _draw_rows(figure: Figure, scheme: str, run: RunFiles) -> None:
    """The norm of every compactor row over steps, layer below layer, the rows that last longest first."""
    steps, rows = run.row_norms
    axes = figure.add_subplot()
    colours = colormaps["viridis"].with_extremes(under=GONE[scheme], over=FOLDED[scheme])
    # [all rows, steps]
    within = (np.clip(of_layer, LEAST_NORM - 1, MOST_NORM + 1) for of_layer in rows.values())
    norms = np.concatenate([of_layer[np.argsort(-of_layer.sum(axis=1), kind="stable")] for of_layer in within])
    ends = np.cumsum([len(of_layer) for of_layer in rows.values()])
    until = [*steps[1:], steps[-1] + 1]  # a norm is shown from its step to the next one that there is
    edges = [steps[0], *until], np.arange(len(norms) + 1)
    image = axes.pcolormesh(*edges, norms, cmap=colours, vmin=LEAST_NORM, vmax=MOST_NORM)
    axes.invert_yaxis()
    for end in ends[:-1]:
        axes.axhline(end, color=INK[scheme], linewidth=0.4)
    labels = [printable(name) for name in rows]
    axes.set_yticks(ends - np.diff(ends, prepend=0) / 2, labels, fontsize=6, parse_math=False)
    axes.set_xlabel("step")
    bar = figure.colorbar(image, ax=axes, extend="both", extendfrac=0.03, label="norm of a row, as a power of ten")
    for words, height, side in (("alive,\nfolded", 1.04, "bottom"), ("gone", -0.04, "top")):
        at = {"transform": bar.ax.transAxes, "ha": "center", "va": side}
        bar.ax.text(0.5, height, words, fontsize=7, color=INK[scheme], **at)


def _draw_shares(figure: Figure, scheme: str, run: RunFiles) -> None:
    """Each layer's channels that aren't masked, as a share of the first epoch's, over epochs."""
    names = run.width_names
    curves = [run.curve("scalars", name) for name in names]
    epochs = curves[0][0]
    axes = figure.add_subplot()
    shares = [[width / max(widths) for width in widths] for _, widths in curves]
    image = axes.imshow(
        shares, aspect="auto", vmin=0, vmax=1, cmap="cividis", extent=(epochs[0], epochs[-1] + 1, len(names), 0)
    )
    labels = [printable(name.removeprefix("width/")) for name in names]
    axes.set_yticks([row + 0.5 for row in range(len(names))], labels, fontsize=6, parse_math=False)
    axes.set_xlabel("epoch")
    figure.colorbar(image, ax=axes, label="share of channels not masked")


def _in_ink(axes: Axes, ink: str) -> None:
    axes.tick_params(colors=ink, labelsize=7)
    axes.xaxis.label.set(color=ink, fontsize=8)
    axes.yaxis.label.set(color=ink, fontsize=8)
    for side in axes.spines.values():
        side.set_color(ink)
