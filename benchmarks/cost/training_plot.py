"""What a training step costs along a pruning run, over a step of the unpruned network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.cost.training_figures import FLOOR, FULL, FULL_WIDTH, PLAIN, ROWS, SHARES, VARIANTS, Figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {PLAIN: "0.3", FULL_WIDTH: "tab:red", ROWS: "tab:blue", FULL: "tab:purple", FLOOR: "tab:green"}
STYLES = dict(zip(SHARES, ("-", "--"), strict=True))  # by when the target is reached
FIRST = next(iter(SHARES))
WIDTH, HEIGHT, COLUMNS = 5.2, 4.2, 2  # of a panel, in inches; panels in a line


@dataclass(frozen=True)
class Line:
    """One way to train, along a run that reaches its target at a share of its steps.

    Attributes:
        variant: one of `VARIANTS` but the plain one.
        at: the share's name, a key of `SHARES`.
    """

    variant: str
    at: str

    @property
    def label(self) -> str:
        """What the legend calls it: a step without narrowing costs the same all along."""
        return self.variant if self.variant == FULL_WIDTH else f"{self.variant}, target at {self.at} of the run"

    @property
    def drawn(self) -> dict[str, str]:
        """Its colour and style."""
        return {"linestyle": STYLES[self.at], "color": COLOURS[self.variant]}

    def whole_run(self, entry: Figures) -> float:
        """What all of the run costs, over plain training."""
        if self.variant == FULL_WIDTH:
            return entry["no_narrowing"]["median"]
        return entry["whole_run"][self.variant][self.at]


def lines() -> Iterator[Line]:
    """Those of each panel."""
    for variant in VARIANTS[1:]:
        for at in SHARES:
            if variant != FULL_WIDTH or at == FIRST:
                yield Line(variant, at)


def plot_costs(entries: Mapping[str, Figures], path: Path) -> None:
    """Draw each entry of results/training_cost.json in a panel of its own, with its quartiles shaded."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if not entries:
        return
    columns = min(COLUMNS, len(entries))
    rows = -(-len(entries) // columns)
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(WIDTH * columns, HEIGHT * rows + 1), layout="constrained", squeeze=False
    )
    for axes in grid.flat[len(entries) :]:
        axes.set_visible(False)
    for axes, entry in zip(grid.flat, entries.values(), strict=False):
        draw(axes, entry)
    for axes in grid[:, 0]:
        axes.set_ylabel("a training step, plain = 1")
    named = dict(zip(*reversed(grid[0, 0].get_legend_handles_labels()), strict=True))
    figure.legend(named.values(), named, loc="outside lower center", ncols=columns, fontsize=9)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)


def draw(axes: Axes, entry: Figures) -> None:
    """One network's lines, and beside its title what whole runs cost."""
    progress = [point["progress"] for point in entry["points"]]
    axes.axhline(1, color=COLOURS[PLAIN], linewidth=1, label=PLAIN)
    for line in lines():
        ratios = [point["ratios"][line.variant] for point in entry["points"]]
        ratios.append(ratios[-1])
        steps = [SHARES[line.at] * value for value in progress] + [1]
        axes.plot(steps, [ratio["median"] for ratio in ratios], linewidth=1.6, label=line.label, **line.drawn)
        if line.at == FIRST:
            low, high = zip(*(ratio["quartiles"] for ratio in ratios), strict=True)
            axes.fill_between(steps, low, high, color=COLOURS[line.variant], alpha=0.15, linewidth=0)
    totals = [f"{line.whole_run(entry):.2f}  {line.label.removesuffix(' of the run')}" for line in lines()]
    axes.text(0.03, 0.04, "\n".join(["whole runs, plain = 1:", *totals]), fontsize=8, transform=axes.transAxes)
    axes.set_title(
        f"{entry['model']}, {entry.get('compactors', 'dense')} compactors\n"
        f"{entry['precision']}, batch {entry['batch']}, {entry['points'][-1]['macs_ratio']:.1%} of MACs",
        fontsize=10,
    )
    axes.set(xlabel="share of the run", xlim=(0, 1), ylim=(0, None))
    axes.grid(alpha=0.3)
