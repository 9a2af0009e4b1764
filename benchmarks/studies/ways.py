"""The README's table of ways to the same MACs: the entries of short_schedules.py, and how often each was tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.studies.results import at_best_rates, interval, machines

WAYS = {
    "base": "not pruned: the base trained on",
    "fast-distill": "`--fast --distill 0.5`",
    "fast": "`--fast`",
    "l1-distill": "uniform L1, then fine-tuning with the same teacher",
    "l1": "uniform L1, then fine-tuning",
    "resrep": "the paper's rule, scaled to the length",
    "torch-pruning": "Torch-Pruning, group norms, sparse learning for half of the epochs, then fine-tuning",
    "scratch": "the widths of L1, from random weights",
}


def ways_table(results: Mapping[str, Any]) -> str:
    """A row per way with its top-1 after each number of epochs, its runs and the learning rates it was tried at."""
    entries = results["entries"]
    lengths = sorted({entry["epochs"] for entry in entries})
    best = {(entry["arm"], entry["epochs"]): entry for entry in at_best_rates(entries)}
    rows = [["way", *(f"{length} epochs" for length in lengths)]]
    rows.append(["---"] * len(rows[0]))
    for arm, words in WAYS.items():
        cells = [_cell(entries, best.get((arm, length))) for length in lengths]
        rows.append([words, *cells])
    runs = [run for entry in entries for run in entry["runs"]]
    target = f"{results['target']:.0%}"
    certainty = _certainty([lead for lead in results["leads"] if lead["rival"] in ("l1", "l1-distill")])
    return "\n".join(
        [
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            f"Top-1 of `{results['network']}` at {target} of its MACs, {results['data']}: mean, sample standard "
            "deviation, runs (seeds); then the learning rates that were tried, of which this is, among those with the "
            f"most seeds, the best one on the test images. {certainty} {machines(runs)}.",
        ]
    )


def _certainty(leads: Sequence[Mapping[str, Any]]) -> str:
    """How many leads over L1 are more than chance."""
    several = [lead["points"] for lead in leads if lead["points"]["n"] > 1]
    clear = sum(interval(points)[0] > 0 for points in several)
    return f"Leads over L1 with several seeds: {len(several)}, of which {clear} clear of their 95% interval."


def _cell(entries: Sequence[Mapping[str, Any]], entry: Mapping[str, Any] | None) -> str:
    """Mean, spread, seeds and rates of one arm after so many epochs; empty where it wasn't run."""
    if entry is None:
        return ""
    top1 = entry["top1"]
    spread = "" if top1["spread"] is None else f" ± {top1['spread']:.2f}"
    rates = {other["lr"] for other in entries if (other["arm"], other["epochs"]) == (entry["arm"], entry["epochs"])}
    return f"{top1['mean']:.2f}%{spread} (n = {top1['n']}; {len(rates)} rate{'s' if len(rates) > 1 else ''})"
