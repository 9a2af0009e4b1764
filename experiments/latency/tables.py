"""What was measured, as text, as CSV (timm benchmark's column names where they fit) and as a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.latency.layers import LayerTimes
from rr import InputError
from rr.latency.engines import Ready
from rr.latency.rounds import Spread
from rr.latency.settings import Timing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOUR, GREY = "#0072b2", "#8a949c"


@dataclass(frozen=True)
class Counted(Ready):
    """A network that is timed, and what it costs.

    Attributes:
        macs, parameters: of one image, and of the network.
    """

    macs: int
    parameters: int


@dataclass(frozen=True)
class Measured:
    """Both networks in one setting.

    Attributes:
        setting: which.
        base, pruned: seconds of a batch.
        faster: the base's seconds over the pruned one's, round by round.
    """

    setting: Timing
    base: Spread
    pruned: Spread
    faster: Spread


def rows_of(measured: Sequence[Measured], base: Counted, pruned: Counted, image_size: int) -> list[dict[str, Any]]:
    """Two rows for each setting; times are those of a batch, in milliseconds."""
    rows = []
    for one in measured:
        for network, seconds in ((base, one.base), (pruned, one.pruned)):
            row: dict[str, Any] = {
                "model": network.name,
                "runtime": one.setting.runtime,
                "precision": one.setting.precision,
                "threads": one.setting.threads,
                "infer_samples_per_sec": round(one.setting.batch / seconds.median, 2),
                "infer_step_time": round(1000 * seconds.median, 4),
                "infer_step_time_q1": round(1000 * seconds.low, 4),
                "infer_step_time_q3": round(1000 * seconds.high, 4),
                "infer_batch_size": one.setting.batch,
                "infer_img_size": image_size,
                "infer_gmacs": round(network.macs / 1e9, 6),
                "param_count": round(network.parameters / 1e6, 6),
                "times_faster": "",
                "times_faster_q1": "",
                "times_faster_q3": "",
                "share_of_promise": "",
            }
            if network is pruned:
                row |= {
                    "times_faster": round(one.faster.median, 4),
                    "times_faster_q1": round(one.faster.low, 4),
                    "times_faster_q3": round(one.faster.high, 4),
                    "share_of_promise": round(one.faster.median * pruned.macs / base.macs, 4),
                }
            rows.append(row)
    return rows


def layer_rows(layers: Sequence[LayerTimes]) -> list[dict[str, Any]]:
    """A row for each layer; MACs are those of one image, times those of a batch, in milliseconds."""
    rows = []
    for layer in layers:
        row: dict[str, Any] = {"layer": layer.name}
        for which, run in (("base", layer.base), ("pruned", layer.pruned)):
            row |= {
                f"{which}_widths": "->".join(map(str, run.widths)) if run else "gone",
                f"{which}_gmacs": round(run.macs / 1e9, 6) if run else 0,
                f"{which}_ms": round(1000 * run.seconds, 4) if run else 0,
            }
        rows.append(
            {**row, "share_of_promise": "" if layer.share is None else round(layer.share, 4), "slow": layer.slow}
        )
    return rows


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows with a head, as text."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def described(measured: Sequence[Measured], base: Counted, pruned: Counted) -> str:
    """A line for each setting."""
    promise = base.macs / pruned.macs
    lines = [
        f"{base.name}: {base.macs:,} MACs; {pruned.name}: {pruned.macs:,}, {promise:.2f} times fewer.",
        f"{'':46}{'ms a batch, median':>22}{'times faster (quartiles)':>28}{'of the promise':>16}",
    ]
    for one in measured:
        times = f"{1000 * one.base.median:.3f} -> {1000 * one.pruned.median:.3f}"
        faster = f"{one.faster.median:.2f} ({one.faster.low:.2f}, {one.faster.high:.2f})"
        lines.append(f"{one.setting!s:46}{times:>22}{faster:>28}{one.faster.median / promise:>16.0%}")
    return "\n".join(lines)


def described_layers(layers: Sequence[LayerTimes], most: int = 10) -> str:
    """The layers that keep least of what their MACs promise, weighed by their time, and the widths that are slow."""
    known = [layer for layer in layers if layer.share is not None]
    lost = {layer.name: layer.pruned.seconds * (1 - layer.share) for layer in known}
    worst = [layer for layer in sorted(known, key=lambda layer: -lost[layer.name]) if lost[layer.name] > 0][:most]
    lines = [f"the {len(worst)} layers that lose most time against their MACs (eager):"]
    for layer in worst:
        before, after = layer.base, layer.pruned
        lines.append(
            f"  {layer.name}: {'->'.join(map(str, before.widths))} to {'->'.join(map(str, after.widths))}, "
            f"{before.macs / after.macs:.2f} times fewer MACs, {before.seconds / after.seconds:.2f} times faster"
            + (f"; {layer.slow}" if layer.slow else "")
        )
    return "\n".join(lines) if worst else "no layer is slower than its MACs promise (eager)"


def figure_of(measured: Sequence[Measured], promise: float) -> Figure:
    """Times faster in each setting, with its quartiles, against what the MACs promise.

    Args:
        measured: the settings.
        promise: the base's MACs over the pruned network's.

    Raises:
        InputError: where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure  # takes a second to import, and is optional
    except ModuleNotFoundError:
        raise InputError('drawing needs matplotlib: pip install "resrep[report]"') from None
    figure = Figure(figsize=(7.5, 1.4 + 0.24 * len(measured)), layout="constrained")
    axes = figure.add_subplot()
    medians = [one.faster.median for one in measured]
    spreads = [
        [one.faster.median - one.faster.low for one in measured],
        [one.faster.high - one.faster.median for one in measured],
    ]
    places = range(len(measured))
    axes.barh(places, medians, height=0.7, color=COLOUR, xerr=spreads, ecolor="black", label="measured, with quartiles")
    axes.axvline(promise, color="black", linestyle="--", linewidth=1, label="promised by the MACs")
    axes.axvline(1, color=GREY, linewidth=1, label="as the base")
    axes.set_yticks(places, [str(one.setting) for one in measured], fontsize=7)
    axes.set_ylim(len(measured) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel("times faster")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure
