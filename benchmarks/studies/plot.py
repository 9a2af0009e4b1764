"""Accuracy of each way to a narrow network, over the epochs that it had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.studies.results import at_best_rates, interval

LEAST_SPAN = 2.0  # points of accuracy: a narrower axis would make noise look like news


def plot_arms(results: dict[str, Any], path: Path) -> None:
    """Draw each number of epochs in a panel of its own, each arm at its best learning rate.

    Every seed is a dot, and a lone one is hollow; of several, the mean stands beside them with its 95% interval, which
    few seeds leave wide. The dashed line is the mean of the unpruned networks that the runs start from.

    Args:
        results: what the study's file holds.
        path: the image file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    entries = at_best_rates(results["entries"])
    lengths = sorted({entry["epochs"] for entry in entries})
    figure, grid = pyplot.subplots(
        1, len(lengths), figsize=(1.5 + 4.5 * len(lengths), 5.0), layout="constrained", squeeze=False, sharey=True
    )
    for axes, epochs in zip(grid.flat, lengths, strict=True):
        shown = [entry for entry in entries if entry["epochs"] == epochs]
        for place, entry in enumerate(shown):
            top1 = [run["top1"] for run in entry["runs"]]
            several = len(top1) > 1
            look = {"fillstyle": "full"} if several else {"fillstyle": "none"}
            label = "a run of several seeds" if several else "one seed alone: a hint"
            axes.plot([place] * len(top1), top1, "o", color="tab:blue", alpha=0.7, markersize=5, label=label, **look)
            if several:
                mean = entry["top1"]["mean"]
                reach = mean - interval(entry["top1"])[0]
                label = "their mean, and its 95% interval"
                axes.errorbar(place + 0.2, mean, reach, fmt="_", color="tab:red", capsize=3, label=label)
        bases = {run["seed"]: run["base"] for entry in shown for run in entry["runs"] if run["base"] is not None}
        if bases:
            mean = sum(bases.values()) / len(bases)
            axes.axhline(mean, color="0.4", linestyle="--", linewidth=1, label="unpruned, before")
        axes.set_xticks(range(len(shown)), [entry["arm"] for entry in shown], rotation=35, ha="right", fontsize=9)
        axes.set_title(f"{results['network']}, {epochs} epochs, {results['target']:.0%} of the MACs", fontsize=10)
        axes.grid(alpha=0.3, axis="y")
    low, high = grid[0, 0].get_ylim()  # all panels have one axis
    grid[0, 0].set_ylim(min(low, (low + high - LEAST_SPAN) / 2), max(high, (low + high + LEAST_SPAN) / 2))
    shown_once = {
        label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(shown_once.values(), shown_once, loc="outside lower center", ncols=4, fontsize=8)
    grid[0, 0].set_ylabel(f"top-1 %, {results['data']}")
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)
