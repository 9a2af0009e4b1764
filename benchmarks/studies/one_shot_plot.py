"""Accuracy of networks cut without training, over what they have left of their MACs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.studies.one_shot import OURS
from benchmarks.studies.one_shot_table import Cut, by_way
from benchmarks.studies.results import over_seeds

ACCURACIES = ("top1", "top1_statistics_anew")


def plot_cuts(results: Mapping[str, Any], path: Path) -> None:
    """Draw each network in a panel of its own: each way at its better statistics, its spread over draws as bars.

    Args:
        results: what prune_now.py's file holds.
        path: the image file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = {key: points for key, cuts in by_way(results).items() if (points := points_of(cuts))}
    networks = list(dict.fromkeys(arch for arch, _ in lines))
    colours = {way: f"C{place}" for place, way in enumerate(dict.fromkeys(way for _, way in lines))}
    figure, grid = pyplot.subplots(
        1, len(networks), figsize=(1.0 + 4.5 * len(networks), 4.6), layout="constrained", squeeze=False
    )
    for axes, network in zip(grid.flat, networks, strict=True):
        for way, points in ((way, points) for (arch, way), points in lines.items() if arch == network):
            look = {"linewidth": 2.2, "zorder": 3} if way == OURS else {"linewidth": 1.0, "linestyle": "--"}
            shares, means, spreads = zip(*points, strict=True)
            axes.errorbar(
                shares, means, spreads, marker="o", markersize=4, capsize=3, color=colours[way], label=way, **look
            )
        bases = [
            cut["base"] for name, cut in results["cuts"].items() if name.startswith(f"{network} ") and "base" in cut
        ]
        axes.axhline(over_seeds(bases)["mean"], color="0.4", linestyle=":", linewidth=1, label="not pruned")
        axes.set_title(network, fontsize=10)
        axes.set_xlabel("% of the MACs left")
        axes.grid(alpha=0.3)
    grid[0, 0].set_ylabel("top-1 %, nothing trained")
    named = {
        label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(named.values(), named, loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)


def points_of(cuts: Mapping[str, Sequence[Cut]]) -> list[tuple[float, float, float]]:
    """Share of the MACs in percent, mean top-1 and its spread over draws (0 for one), the better of both statistics.

    Args:
        cuts: one for each draw, by share; those that failed give none.
    """
    points = []
    for share, found in sorted(cuts.items(), key=lambda item: float(item[0])):
        if good := [cut for cut in found if "top1" in cut]:
            over = over_seeds([max(cut[name] for name in ACCURACIES if name in cut) for cut in good])
            points.append((100 * float(share), over["mean"], over["spread"] or 0.0))
    return points
