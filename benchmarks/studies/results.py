"""The figures of a study: read from the folders of its runs, put together by arm, compared, and shown as text."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rr.errors import InputError
from training.json_files import read_json, read_lines
from training.run_folder import METRICS

RESULT = "result.json"
AROUND = ("before_cut", "after_cut")
SIDES = ("arm", "rival")
# Where a run was made, not how.
WHERE = ("output_dir", "data_dir", "base_weights", "weights", "teacher", "device", "workers", "log_interval", "seed")
SURROUNDINGS = ("started", "commit", "versions", "hardware", "processes", "threads", "device")

Figures = dict[str, Any]


def read_run(folder: Path) -> Figures | None:
    """The figures of a finished run, whichever of the two scripts wrote it; None where it isn't finished.

    Returns:
        top1: of the narrow network with the last epoch's weights, in percent.
        base: top-1 of the network that the run started from.
        before_cut, after_cut: top-1 around the cut (or the conversion), None where there was none.
        val_loss, train_loss: of the last epoch, the latter with augmentation (and the teacher's part). They tell
            settings apart where their top-1 differs by no more than chance.
        evaluations: top-1 in the course of the run, by the number of epochs.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    result = read_json(path)
    if "conversion" in result:
        found = _of_pruning(result) if "before_conversion" in result else None
    else:
        found = _of_rival(result) if "finished" in result else None
    return None if found is None else {**found, **_of_metrics(folder)}


def entry_of(folders: Mapping[int, Path]) -> Figures:
    """The figures of one arm, of each seed and over all (`over_seeds`), from the runs' folders by seed."""
    found = {seed: read_run(folder) for seed, folder in sorted(folders.items())}
    runs = [{"seed": seed, **figures} for seed, figures in found.items()]
    recipe = {name: value for name, value in runs[0]["run"]["recipe"].items() if name not in WHERE}
    for figures in runs:
        run = figures.pop("run")
        figures |= {name: run[name] for name in SURROUNDINGS}
    return _over_all(recipe, runs)


def joined(entry: Figures, earlier: Figures) -> Figures:
    """The entry, with the runs that an earlier entry of the same arm has for further seeds.

    Raises:
        InputError: if the two were trained by different recipes (as far as both know an option).
    """
    seeds = {run["seed"] for run in entry["runs"]}
    missing = [run for run in earlier["runs"] if run["seed"] not in seeds]
    if not missing:
        return entry
    ours, theirs = entry["recipe"], earlier["recipe"]
    other = sorted(name for name in ours.keys() & theirs.keys() - {"compile"} if ours[name] != theirs[name])
    if other:
        raise InputError(
            f"{entry['arm']} with {entry['epochs']} epochs was trained by another recipe before ({', '.join(other)}): "
            "undo the change, or give another --output"
        )
    runs = sorted([*entry["runs"], *missing], key=lambda run: run["seed"])
    return {**entry, **_over_all(ours, runs)}


def over_seeds(values: Sequence[float]) -> Figures:
    """Mean, spread (the sample standard deviation, None for one value) and number of the values."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "spread": spread, "n": len(values)}


def interval(points: Figures) -> tuple[float, float]:
    """Student's 95% interval of a mean over at least two seeds, as `over_seeds` gives them."""
    from scipy import stats  # takes a second to import: --help needn't wait for it

    half = float(stats.t.ppf(0.975, points["n"] - 1)) * points["spread"] / math.sqrt(points["n"])
    return points["mean"] - half, points["mean"] + half


def at_best_rates(entries: Sequence[Figures]) -> list[Figures]:
    """Each arm, for each number of epochs, at its best learning rate among those with the most seeds."""
    best: dict[tuple[int, str], Figures] = {}
    for entry in entries:
        key = entry["epochs"], entry["arm"]
        best[key] = max(best.get(key, entry), entry, key=lambda one: (one["top1"]["n"], one["top1"]["mean"]))
    return list(best.values())


def leads_of(entries: Sequence[Figures], rivals: Sequence[tuple[str, str]]) -> list[Figures]:
    """By how much an arm is above its rival after the same epochs, over the seeds that both have (`at_best_rates`).

    Args:
        entries: of all arms.
        rivals: pairs of arms.

    Returns:
        For each pair and number of epochs, besides their names:
        points: differences of the top-1, seed by seed.
        spread: the larger one of the two arms' spreads; None for one seed.
        seeds, arm_lr, rival_lr: of the runs compared.
    """
    found, at_best = [], at_best_rates(entries)
    for epochs in sorted({entry["epochs"] for entry in at_best}):
        best = {entry["arm"]: entry for entry in at_best if entry["epochs"] == epochs}
        for pair in (pair for pair in rivals if set(pair) <= set(best)):
            arm, rival = ({run["seed"]: run["top1"] for run in best[name]["runs"]} for name in pair)
            seeds = sorted(arm.keys() & rival.keys())
            if not seeds:
                continue
            points = over_seeds([arm[seed] - rival[seed] for seed in seeds])
            both = [over_seeds([runs[seed] for seed in seeds])["spread"] for runs in (arm, rival)]
            spread = max(both) if len(seeds) > 1 else None
            lead = {"epochs": epochs, "arm": pair[0], "rival": pair[1], "points": points}
            lead |= {"seeds": seeds, **{f"{side}_lr": best[lead[side]]["lr"] for side in SIDES}}
            found.append({**lead, "spread": spread})
    return found


def lead_in_words(lead: Figures) -> str:
    """A lead as a line of text."""
    points, spread = lead["points"], lead["spread"]
    line = f"{lead['epochs']} epochs: {lead['arm']} over {lead['rival']} {points['mean']:+.2f} points"
    if spread is None:
        return f"{line} (one seed{_image_by_image(lead)})"
    low, high = interval(points)
    return f"{line}, 95% interval {low:+.2f} to {high:+.2f} ({points['n']} seeds)"


def _image_by_image(lead: Figures) -> str:
    """How certain the lead of one seed is, where its networks were compared on each image."""
    paired = lead.get("paired")
    if paired is None:
        return ""
    counts = f"alone right: {lead['arm']} on {paired['only_second']:,} images, {lead['rival']} on"
    return f"; {counts} {paired['only_first']:,}; standard error {paired['standard_error']:.2f}"


def in_short(entries: Sequence[Figures]) -> str:
    """The entries as lines of text."""
    rows = [
        ("arm", "epochs", "lr", "n", "top-1 %", "spread", "loss", "train", "change", "MACs", "before cut", "after cut")
    ]
    order = ("arm", "epochs", "lr", "n", "top1", "spread", "val_loss", "train_loss", "change")
    for entry in entries:
        cells = _cells(entry)
        macs = f"{entry['macs_ratio']['mean']:.3f}"
        rows.append((*(cells[name] or "-" for name in order), macs, *(cells[name] or "-" for name in AROUND)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def table(results: Figures, file: str, entries: Sequence[Figures]) -> str:
    """Some of a study's entries as a Markdown table, with its leads and what they were measured on.

    Args:
        results: what the study's file holds.
        file: its name in results/.
        entries: those to show.
    """
    rows = [
        [
            *("arm", "epochs", "learning rate", "runs", "top-1", "spread", "over its start", "loss", "training loss"),
            *("MACs kept", "before, after the cut"),
        ]
    ]
    rows.append(["---"] * len(rows[0]))
    for entry in entries:
        cells = _cells(entry)
        rows.append(
            [
                f"`{cells['arm']}`",
                *(cells[name] for name in ("epochs", "lr", "n")),
                f"{cells['top1']}%",
                *(cells[name] for name in ("spread", "change", "val_loss", "train_loss")),
                f"{entry['macs_ratio']['mean']:.1%}",
                ", ".join(f"{cells[name]}%" for name in AROUND if cells[name]),
            ]
        )
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    lines += ["", *(f"- {lead_in_words(lead)}" for lead in results["leads"])] if results.get("leads") else []
    all_runs = [one for entry in results["entries"] for one in entry["runs"]]
    lines += [
        "",
        f"{results['network']}, {results['data']}; means over the runs' seeds and sample standard deviations. "
        f"`results/{file}`: {machines(all_runs)}.",
    ]
    return "\n".join(lines)


def evaluations_table(entries: Sequence[Figures]) -> str:
    """The top-1 in the course of each run that has it, as a Markdown table: a line per evaluation, a column per run."""
    names, columns = ["after epoch"], []
    for entry in entries:
        for run in entry["runs"]:
            if "evaluations" in run:
                names.append(f"`{entry['arm']}`, {entry['lr']:g}, seed {run['seed']}")
                columns.append(run["evaluations"])
    epochs = sorted({int(epoch) for column in columns for epoch in column})
    rows = [names, ["---"] * len(names)]
    for epoch in map(str, epochs):
        rows.append([epoch, *(f"{column[epoch]:.2f}%" if epoch in column else "" for column in columns)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _over_all(recipe: Figures, runs: list[Figures]) -> Figures:
    """An arm's runs, with their figures over all seeds."""
    changes = [figures["top1"] - figures["base"] for figures in runs if figures["base"] is not None]
    return {
        "top1": over_seeds([figures["top1"] for figures in runs]),
        "change": over_seeds(changes) if changes else None,
        **{name: over_seeds([figures[name] for figures in runs]) for name in ("val_loss", "train_loss", "macs_ratio")},
        "recipe": recipe,
        "runs": runs,
    }


def _cells(entry: Figures) -> dict[str, str]:
    """The figures of an entry as text, empty where there is none."""
    top1, change = entry["top1"], entry["change"]
    around = {name: [run[name] for run in entry["runs"] if run[name] is not None] for name in AROUND}
    return {
        "arm": entry["arm"],
        "epochs": str(entry["epochs"]),
        "lr": f"{entry['lr']:g}",
        "n": str(top1["n"]),
        "top1": f"{top1['mean']:.2f}",
        "spread": "" if top1["spread"] is None else f"{top1['spread']:.2f}",
        "change": "" if change is None else f"{change['mean']:+.2f}",
        **{name: f"{entry[name]['mean']:.4f}" if name in entry else "" for name in ("val_loss", "train_loss")},
        **{name: f"{statistics.fmean(values):.2f}" if values else "" for name, values in around.items()},
    }


def machines(runs: Sequence[Figures]) -> str:
    """What trained these runs, each kind once."""
    kinds = {}
    for run in runs:
        processes = run.get("processes", 1)  # older files have only runs of one process
        cores = "one core" if processes * run["threads"] == 1 else f"{processes * run['threads']} cores"
        cores += f" ({processes} processes)" if processes > 1 else ""
        kinds[f"{run['hardware']['cpu']}, {cores} a run, torch {run['versions']['torch']}"] = None
    return "; ".join(kinds)


def _of_metrics(folder: Path) -> Figures:
    lines = read_lines(folder / METRICS)
    losses = {f"{name}_loss": [line[name]["loss"] for line in lines if name in line][-1] for name in ("val", "train")}
    return {**losses, "evaluations": {str(line["epoch"]): line["val"]["top1"] for line in lines if "val" in line}}


def _of_pruning(result: Figures) -> Figures:
    return {
        "top1": result["converted"]["top1"],
        "base": result["base"]["top1"],
        "before_cut": result["before_conversion"]["top1"],
        "after_cut": result["converted"]["top1"],
        "macs_ratio": result["conversion"]["macs_ratio"],
        "widths": result["conversion"]["widths"],
        "run": result["run"],
    }


def _of_rival(result: Figures) -> Figures:
    around = {name: result[name] and result[name]["top1"] for name in ("base", *AROUND)}
    return {
        "top1": result["finished"]["top1"],
        **around,
        **{name: result[name] for name in ("macs_ratio", "widths", "run")},
    }
