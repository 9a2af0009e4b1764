"""CPU seconds to trace and plan a network against its number of layers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LABELS = {"cnn": "CNN", "transformer": "with attention", None: "network"}  # None: files from before kinds were recorded


def plot_seconds(models: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw all traced models of results/coverage.json to an image file; both axes are logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    traced = [figures for figures in models.values() if "trace_cpu_seconds" in figures]
    if not traced:
        return
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for kind, marker in (("cnn", "o"), ("transformer", "^"), (None, "o")):
        found = [figures for figures in traced if figures.get("kind") == kind]
        if found:
            layers, seconds = zip(*((item["layers"], item["trace_cpu_seconds"]) for item in found), strict=True)
            axes.scatter(layers, seconds, s=18, marker=marker, alpha=0.75, label=f"{LABELS[kind]} ({len(found)})")
    each = statistics.median(figures["trace_cpu_seconds"] / figures["layers"] for figures in traced)
    ends = [min(figures["layers"] for figures in traced), max(figures["layers"] for figures in traced)]
    axes.plot(
        ends, [each * end for end in ends], color="0.4", linewidth=1, label=f"{1000 * each:.1f} ms a layer (the median)"
    )
    axes.set(
        xscale="log", yscale="log", xlabel="layers (convolution, linear, BN)", ylabel="CPU seconds to trace and plan"
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)
