"""What latency_target.json says, as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RUNTIMES = {"eager": "torch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
PACKAGES = ("torch", "onnxruntime", "openvino", "torchvision", "timm")
BAR = 0.03  # of what was asked


def latency_target_table(results: Mapping[str, Any]) -> str:
    """What was asked, found and measured anew, a row for each network, runtime and batch."""
    head = [
        "network",
        "runtime",
        "batch",
        "asked",
        "MACs kept",
        "multiples of",
        "at the end",
        "measured anew",
    ]
    lines = [[*head, "(from, to)", "off by"], ["---"] * (len(head) + 2)]
    rows = results["rows"]
    lines += [_cells(row) for row in rows]
    near = sum(_is_near(row) for row in rows)
    made = f"{results['hardware']['cpu']}, one thread, " + ", ".join(f"{p} {results['versions'][p]}" for p in PACKAGES)
    return "\n".join(
        [
            *(f"| {' | '.join(line)} |" for line in lines),
            "",
            f"{near} of {len(rows)} within {BAR:.0%} of what was asked, measured anew. "
            f"`results/latency_target.json`: {made}, commit {results['commit'][:10]}.",
        ]
    )


def _cells(row: Mapping[str, Any]) -> list[str]:
    first = [f"`{row['network']}`, {row['image_size']} px", RUNTIMES[row["runtime"]], str(row["batch"])]
    first.append(f"{row['asked']:.0%}")
    if "error" in row:
        return [*first, row["error"].replace("|", "/"), *[""] * 5]
    found, fresh = row["found"], row["fresh"]
    ends = f"{fresh['low']:.1%}, {fresh['high']:.1%}"
    off = f"{fresh['median'] / row['asked'] - 1:+.1%}"
    shares = [f"{found['macs_share']:.1%}", str(found["width_multiple"]), f"{found['median']:.1%}"]
    return [*first, *shares, f"{fresh['median']:.1%}", ends, off if _is_near(row) else f"**{off}**"]


def _is_near(row: Mapping[str, Any]) -> bool:
    return "fresh" in row and abs(row["fresh"]["median"] / row["asked"] - 1) <= BAR
