"""What results/prune_now.json says, as a table: a row for each way, a column for each share of the MACs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.studies.results import over_seeds

Cut = Mapping[str, Any]


def by_way(results: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, list[Cut]]]:
    """The cuts of prune_now.py's file, one for each draw, by network and way, then by share of the MACs."""
    cuts: dict[tuple[str, str], dict[str, list[Cut]]] = {}
    for name, cut in results["cuts"].items():
        arch, share, _, way = name.split(" ", 3)
        cuts.setdefault((arch, way), {}).setdefault(share, []).append(cut)
    return cuts


def one_shot_table(results: Mapping[str, Any]) -> str:
    """Top-1 at the cut, of each network, way and share; with BN's statistics as they are and, in brackets, anew."""
    cuts = by_way(results)
    shares = sorted({share for by_share in cuts.values() for share in by_share}, key=float, reverse=True)
    head = ["network", "way", *(f"at {float(share):.0%} of the MACs" for share in shares), "CPU seconds", "MiB"]
    rows = [head, ["---"] * len(head)]
    for (arch, way), by_share in cuts.items():
        cells = [accuracy(by_share.get(share, ())) for share in shares]
        good = [cut for found in by_share.values() for cut in found if "top1" in cut]
        most = [f"{max(cut[what] for cut in good):,.0f}" if good else "-" for what in ("cpu_seconds", "mib")]
        base = f", base {over_seeds([cut['base'] for cut in good])['mean']:.2f}%" if good else ""
        rows.append([f"`{arch}`{base}", way, *cells, *most])
    hardware, most_draws = results["hardware"], max(len(found) for each in cuts.values() for found in each.values())
    draws = (
        "one draw of them" if most_draws == 1 else f"mean and spread of {most_draws} draws of them, or what there is"
    )
    tried = {name.partition(" ")[0]: {**results, **cut} for name, cut in results["cuts"].items() if "top1" in cut}
    images = [f"`{arch}` on {cut['data']}, fitted to {cut['images']:,} images" for arch, cut in tried.items()]
    commits = sorted({cut["commit"][:10] for cut in results["cuts"].values()})
    return "\n".join(
        [
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            f"Top-1 on images that nothing was fitted to: {'; '.join(images)} ({draws}). In brackets: with batch "
            "norm's statistics anew.",
            f"`results/prune_now.json`: {hardware['cpu']}, {results['threads']} of {hardware['cores']} cores for each "
            f"cut, torch {results['versions']['torch']}, commit {', '.join(commits)}.",
        ]
    )


def accuracy(cuts: Sequence[Cut]) -> str:
    """Mean top-1 of some draws, with their spread and number; in brackets with other statistics."""
    good = [cut for cut in cuts if "top1" in cut]
    if not good:
        return "failed" if cuts else "-"
    text = spread([cut["top1"] for cut in good])
    anew = [cut["top1_statistics_anew"] for cut in good if "top1_statistics_anew" in cut]
    return f"{text} ({spread(anew)})" if anew else text


def spread(values: Sequence[float]) -> str:
    """Mean, and standard deviation where there are several."""
    found = over_seeds(values)
    deviation = "" if found["spread"] is None else f" ± {found['spread']:.2f}"
    return f"{found['mean']:.2f}{deviation}%"
