"""What latency.json says, as a Markdown table: times faster, and the share of what the MACs promise, by runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.latency_table import PACKAGES, RUNTIMES

AT_ONE, AT_MORE, IN_TORCH = 0.88, 0.95, 0.80  # bars: in the better one of both runtimes at a batch, and in torch
Row = Mapping[str, Any]


def latency_shares_table(results: Mapping[str, Any]) -> str:
    """A line for each network, multiple of its widths and batch, a column for each runtime; bars met are counted."""
    head = ["network", "widths in multiples of", "times fewer MACs", "batch", *RUNTIMES.values(), "bars"]
    lines, judged = [head, ["---"] * len(head)], []
    for name, found in results["networks"].items():
        for rows in _cases(found["rows"]):
            bars = _bars(
                {row["runtime"]: float(row["share_of_promise"]) for row in rows}, int(rows[0]["infer_batch_size"])
            )
            judged += bars.values()
            lines.append(_cells(name, rows, bars))
        lines += [[f"`{name}`", multiple, reason, *[""] * 5] for multiple, reason in found["left_out"].items()]
    made = ", ".join(f"{package} {results['versions'][package]}" for package in PACKAGES)
    return "\n".join(
        [
            *(f"| {' | '.join(line)} |" for line in lines),
            "",
            f"{sum(judged)} of {len(judged)} bars are met. `results/latency.json`, and as CSV "
            f"[latency.csv](../../results/latency.csv): {results['hardware']['cpu']}, one thread, {made}, commit "
            f"{results['commit'][:10]}.",
        ]
    )


def _cases(rows: Sequence[Row]) -> list[list[Row]]:
    """The narrow networks' rows, together what differs in the runtime alone."""
    cases: dict[tuple[Any, Any], list[Row]] = {}
    for row in rows:
        if row["times_faster"]:  # not the full network's, which stands above each
            cases.setdefault((row["width_multiple"], row["infer_batch_size"]), []).append(row)
    return list(cases.values())


def _bars(shares: Mapping[str, float], batch: int) -> dict[str, bool]:
    """Whether each bar is met: the better one of both runtimes, and torch."""
    compiled = AT_ONE if batch == 1 else AT_MORE
    return {
        f"{compiled:.0%}": max(shares["onnxruntime"], shares["openvino"]) >= compiled,
        f"{IN_TORCH:.0%} in torch": shares["eager"] >= IN_TORCH,
    }


def _cells(name: str, rows: Sequence[Row], bars: Mapping[str, bool]) -> list[str]:
    by_runtime = {row["runtime"]: row for row in rows}
    first, share = rows[0], {}
    for runtime in RUNTIMES:
        row = by_runtime[runtime]
        share[runtime] = f"{float(row['times_faster']):.2f} ({float(row['share_of_promise']):.0%})"
    promised = float(first["times_faster"]) / float(first["share_of_promise"])
    said = "; ".join(f"{bar} {'met' if met else '**missed**'}" for bar, met in bars.items())
    return [
        f"`{name}`",
        str(first["width_multiple"]),
        f"{promised:.2f}",
        str(first["infer_batch_size"]),
        *share.values(),
        said,
    ]
