"""What a training step costs along a pruning run, over a step of the unpruned network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.cost.training_figures import FLOOR, FULL, FULL_WIDTH, PLAIN, ROWS, SHARES, VARIANTS, Figures

COLOURS = {PLAIN: "0.3", FULL_WIDTH: "tab:red", ROWS: "tab:blue", FULL: "tab:purple", FLOOR: "tab:green"}
STYLES = dict(zip(SHARES, ("-", "--"), strict=True))  # by when the target is reached


def plot_costs(entries: Mapping[str, Figures], path: Path) -> None:
    """Draw each entry of results/training_cost.json in a panel of its own, with its quartiles shaded."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if not entries:
        return
    columns = min(2, len(entries))
    lines = -(-len(entries) // columns)
    figure, grid = pyplot.subplots(
        lines, columns, figsize=(5.2 * columns, 4.2 * lines), layout="constrained", squeeze=False
    )
    for axes in grid.flat[len(entries) :]:
        axes.set_visible(False)
    for axes, entry in zip(grid.flat, entries.values(), strict=False):
        progress = [point["progress"] for point in entry["points"]]
        axes.axhline(1, color=COLOURS[PLAIN], linewidth=1, label=PLAIN)
        for variant in VARIANTS[1:]:
            for name, share in SHARES.items():
                # Without narrowing a step costs the same all along: one line is enough.
                if variant == FULL_WIDTH and name != next(iter(SHARES)):
                    continue
                ratios = [point["ratios"][variant] for point in entry["points"]]
                if variant == FULL_WIDTH:
                    label = f"{variant}: {entry['no_narrowing']['median']:.2f}"
                else:
                    label = f"{variant}, target at {name}: {entry['whole_run'][variant][name]:.2f} in all"
                x = [share * value for value in progress] + [1]
                axes.plot(
                    x,
                    [ratio["median"] for ratio in [*ratios, ratios[-1]]],
                    STYLES[name],
                    color=COLOURS[variant],
                    linewidth=1.6,
                    label=label,
                )
                if name == next(iter(SHARES)):
                    low, high = zip(*(ratio["quartiles"] for ratio in [*ratios, ratios[-1]]), strict=True)
                    axes.fill_between(x, low, high, color=COLOURS[variant], alpha=0.15, linewidth=0)
        last = entry["points"][-1]
        title = f"{entry['model']}, {entry.get('compactors', 'dense')} compactors\n"
        title += f"{entry['precision']}, batch {entry['batch']}, {last['macs_ratio']:.1%} of MACs"
        axes.set(
            title=title,
            xlabel="share of the run",
            xlim=(0, 1),
            ylim=(0, None),
        )
        axes.title.set_fontsize(10)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="best")
    for axes in grid[:, 0]:
        axes.set_ylabel("a training step, plain = 1")
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)
