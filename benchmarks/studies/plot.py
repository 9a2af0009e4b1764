"""Accuracy of each way to a narrow network, over the epochs that it had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.studies.results import at_best_rates


def plot_arms(results: dict[str, Any], path: Path) -> None:
    """Draw each number of epochs in a panel of its own, each arm at its best learning rate.

    Every seed is a dot, the mean a bar; the dashed line is the mean of the unpruned networks that the runs start from.

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
        1, len(lengths), figsize=(1.5 + 4.5 * len(lengths), 4.6), layout="constrained", squeeze=False, sharey=True
    )
    for axes, epochs in zip(grid.flat, lengths, strict=True):
        shown = [entry for entry in entries if entry["epochs"] == epochs]
        for place, entry in enumerate(shown):
            top1 = [run["top1"] for run in entry["runs"]]
            axes.plot([place] * len(top1), top1, "o", color="tab:blue", alpha=0.6, markersize=5)
            axes.hlines(entry["top1"]["mean"], place - 0.3, place + 0.3, color="tab:red", linewidth=2)
        bases = {run["seed"]: run["base"] for entry in shown for run in entry["runs"] if run["base"] is not None}
        if bases:
            mean = sum(bases.values()) / len(bases)
            axes.axhline(mean, color="0.4", linestyle="--", linewidth=1, label="unpruned, before")
            axes.legend(fontsize=8)
        axes.set_xticks(range(len(shown)), [entry["arm"] for entry in shown], rotation=35, ha="right", fontsize=9)
        axes.set_title(f"{results['network']}, {epochs} epochs, {results['target']:.0%} of the MACs", fontsize=10)
        axes.grid(alpha=0.3, axis="y")
    grid[0, 0].set_ylabel(f"top-1 %, {results['data']}")
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)
