"""What follows from times of training steps: ratios of pairs, the cost of a whole run, and the bars."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rr.errors import InputError

PLAIN, FULL_WIDTH, ROWS, FULL, FLOOR = "plain", "no narrowing", "rows", "full", "narrow plain"
VARIANTS = (PLAIN, FULL_WIDTH, ROWS, FULL, FLOOR)
SHARES = {"a third": 1 / 3, "a tenth": 1 / 10}  # of the run, in which the target is reached
MOST_AT_FULL_WIDTH = 1.10
MOST_OF_A_RUN = {"a third": 0.90, "a tenth": 0.82}
MOST_OVER_FLOOR = 1.03

Figures = dict[str, Any]


def paired_ratio(times: Sequence[Mapping[str, float]], variant: str, over: str = PLAIN) -> Figures:
    """Median and quartiles of one variant's step over another's, each pair from one round.

    Args:
        times: [rounds], seconds of each variant's step.
        variant: whose step.
        over: over whose step.
    """
    ratios = [of_round[variant] / of_round[over] for of_round in times]
    return {"median": statistics.median(ratios), "quartiles": np.quantile(ratios, [0.25, 0.75]).tolist()}


def whole_run(progress: Sequence[float], ratios: Sequence[float], share: float) -> float:
    """The mean cost of a step over a run that reaches its target at `share` of its steps.

    Args:
        progress: [points], rising from 0 (full width) to 1 (the target).
        ratios: [points], a step's cost there; linear between points, and as at the last one for the rest of the run.
        share: of the steps.

    Raises:
        InputError: if `share` or `progress` isn't as described.
    """
    if not 0 < share <= 1:
        raise InputError(f"share must be more than 0 and at most 1, not {share}")
    if len(progress) < 2 or (progress[0], progress[-1]) != (0, 1):
        raise InputError("progress must go from 0 to 1, in two points at least")
    until_target = sum(
        (later - earlier) * (first + second) / 2
        for earlier, later, first, second in zip(progress[:-1], progress[1:], ratios[:-1], ratios[1:], strict=True)
    )
    return share * until_target + (1 - share) * ratios[-1]


def whole_runs(points: Sequence[Figures], between_steps: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """The cost of a whole run of the variants that get cheaper, over a plain one, by when the target is reached.

    Args:
        points: as measured, with `progress` and `ratios`.
        between_steps: what a variant does besides its steps (mask updates, narrowing), per step and over a plain step.
    """
    progress = [point["progress"] for point in points]
    found = {}
    for variant in (ROWS, FULL, FLOOR):
        extra = between_steps.get(variant, 0.0)
        ratios = [point["ratios"][variant]["median"] + extra for point in points]
        found[variant] = {name: whole_run(progress, ratios, share) for name, share in SHARES.items()}
    return found


def table(entries: Mapping[str, Figures]) -> str:
    """The Markdown table of all networks, and what they were measured on."""
    head = [
        *(
            "network",
            "compactors",
            "plain step",
            "no narrowing",
            "of it the pruner's hooks",
            "`rows`, at the target",
            "`full`, at the target",
            "floor",
        ),
        *("whole run with `full`, target at a third", "at a tenth", "memory with `full`"),
    ]
    rows = [head, ["---"] * len(head)]
    for entry in entries.values():
        last, whole, memory = entry["points"][-1], entry["whole_run"][FULL], entry["memory"]
        at_target = [f"{last['ratios'][name]['median']:.2f}" for name in (ROWS, FULL, FLOOR)]
        share = [memory[name].get("mib") for name in (FULL, PLAIN)]
        rows.append(
            [
                f"`{entry['model']}`, {entry['image_size']} pixels, batch {entry['batch']}, {entry['precision']}",
                entry.get("compactors", "dense"),
                f"{last['ms'][PLAIN]:.0f} ms",
                f"{entry['no_narrowing']['median']:.2f}",
                f"{entry['hooks']['full width']['share_of_step']:.1%}",
                *at_target,
                *(f"{whole[name]:.2f}" for name in SHARES),
                f"{share[0] / share[1]:.2f}" if all(share) else "",
            ]
        )
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    around = next(iter(entries.values()))
    threads = sorted({entry["threads"] for entry in entries.values()})
    lines += [
        "",
        f"Steps and runs over those of the plain, unpruned network; the floor is a plain network of the narrow widths "
        f"(multiples of {around['width_multiple']}). `results/training_cost.json`: {around['hardware']['cpu']}, "
        f"{around['hardware']['cores']} cores, {' and '.join(map(str, threads))} of them used, torch "
        f"{around['versions']['torch']}.",
    ]
    return "\n".join(lines)


def bars(figures: Figures) -> dict[str, bool]:
    """Which of the project's bars a network passes."""
    runs = figures["whole_run"]
    passed = {
        f"no narrowing at most {MOST_AT_FULL_WIDTH:.2f}": figures["no_narrowing"]["median"] <= MOST_AT_FULL_WIDTH,
        f"narrowed step at most {MOST_OVER_FLOOR:.2f} of the floor": figures["over_floor"][FULL]["median"]
        <= MOST_OVER_FLOOR,
    }
    for name, most in MOST_OF_A_RUN.items():
        passed[f"whole run, target at {name}, at most {most:.2f}"] = runs[FULL][name] <= most
    return passed
