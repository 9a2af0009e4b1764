"""What is read from runs, put together and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.studies.results import (
    at_best_rates,
    entry_of,
    evaluations_table,
    joined,
    lead_in_words,
    leads_of,
    over_seeds,
    read_run,
    table,
)


def write_run(folder: Path, recipe: dict[str, Any], top1: list[float], result: dict[str, Any] | None) -> Path:
    """A finished run as the scripts leave it, with the evaluations `top1`."""
    folder.mkdir()
    run = {"recipe": {"output_dir": str(folder), "seed": 3, **recipe}}
    run |= dict.fromkeys(("started", "commit", "versions", "hardware", "processes", "threads", "device"), "known")
    (folder / "run.json").write_text(json.dumps(run))
    lines = [
        json.dumps({"epoch": epoch, "val": {"top1": value, "loss": 1.0 / (1 + epoch)}, "train": {"loss": 2.0 - epoch}})
        + "\n"
        for epoch, value in enumerate(top1)
    ]
    (folder / "metrics.jsonl").write_text("".join(lines))
    if result is not None:
        (folder / "result.json").write_text(json.dumps({**result, "run": run}))
    return folder


def test_figures_of_each_kind_of_run(tmp_path: Path) -> None:
    def val(top1: float) -> dict[str, float]:
        return {"top1": top1}

    recipe = {"flops_target": 0.47}
    assert read_run(tmp_path / "none") is None
    assert read_run(write_run(tmp_path / "unconverted", recipe, [80.0, 81.0], None)) is None
    pruned = {"base": val(80.0), "last_epoch": val(81.0), "conversion": {"macs_ratio": 0.5, "widths": [1]}}
    assert read_run(write_run(tmp_path / "untested", recipe, [80.0, 81.0], pruned)) is None
    both = {"before_conversion": val(82.0), "converted": val(79.0)}
    tested = read_run(write_run(tmp_path / "tested", recipe, [80.0, 81.0], {**pruned, **both}))
    around = [tested[name] for name in ("base", "before_cut", "after_cut", "top1", "macs_ratio")]
    assert around == [80.0, 82.0, 79.0, 79.0, 0.5]

    entry = {"macs_ratio": 0.46, "widths": [1], "finished": val(83.0)}
    rival = {"base": val(80.0), "before_cut": val(79.0), "after_cut": val(20.0), **entry}
    scratch = {"base": None, "before_cut": None, "after_cut": None, **entry}
    folders = {
        0: write_run(tmp_path / "rival", recipe, [20.0, 83.0], rival),
        1: write_run(tmp_path / "other", recipe, [20.0, 84.0], {**rival, "finished": val(84.0)}),
    }
    both = entry_of(folders)
    assert both["top1"] == {"mean": 83.5, "spread": pytest.approx(0.5**0.5), "n": 2}
    assert both["change"]["mean"] == 3.5
    assert both["val_loss"]["mean"] == 0.5
    assert (both["train_loss"]["mean"], [run["seed"] for run in both["runs"]]) == (1.0, [0, 1])
    assert [run["evaluations"] for run in both["runs"]] == [{"0": 20.0, "1": 83.0}, {"0": 20.0, "1": 84.0}]
    assert both["recipe"] == recipe  # without what is of one seed or one machine
    assert entry_of({0: write_run(tmp_path / "new", recipe, [9.0, 83.0], scratch)})["change"] is None


def test_over_seeds() -> None:
    assert over_seeds([80.0, 82.0, 84.0]) == {"mean": 82.0, "spread": 2.0, "n": 3}
    assert over_seeds([80.0]) == {"mean": 80.0, "spread": None, "n": 1}


def test_leads_are_of_the_best_rates_and_of_seeds_that_both_have() -> None:
    def entry(arm: str, epochs: int, top1: dict[int, float], lr: float = 0.1) -> dict[str, Any]:
        runs = [{"seed": seed, "top1": value} for seed, value in top1.items()]
        return {"arm": arm, "epochs": epochs, "lr": lr, "top1": over_seeds(list(top1.values())), "runs": runs}

    entries = [
        entry("ours", 12, {0: 85.0, 1: 86.0, 2: 99.0}),
        entry("theirs", 12, {0: 70.0, 1: 71.0}),
        entry("theirs", 12, {0: 84.0, 1: 84.5}, 0.2),
        entry("theirs", 12, {0: 99.0}),  # a search on one seed decides nothing
        entry("ours", 25, {0: 85.0}),
        entry("theirs", 25, {0: 86.0}),
        entry("others", 25, {4: 80.0}),
    ]
    assert at_best_rates(entries) == [entries[0], entries[2], *entries[4:]]
    long, short = reversed(leads_of(entries, [("ours", "theirs"), ("ours", "others"), ("ours", "no one's")]))
    assert (short["arm"], short["rival"], short["epochs"]) == ("ours", "theirs", 12)
    assert (short["seeds"], short["arm_lr"], short["rival_lr"]) == ([0, 1], 0.1, 0.2)
    assert short["points"] == {"mean": 1.25, "spread": pytest.approx(0.125**0.5), "n": 2}
    assert short["spread"] == pytest.approx(0.5**0.5)
    assert (long["points"]["mean"], long["spread"]) == (-1.0, None)
    words = [lead_in_words(lead) for lead in (short, long)]
    assert words[0] == "12 epochs: ours over theirs +1.25 points, 95% interval -1.93 to +4.43 (2 seeds)"
    assert words[1] == "25 epochs: ours over theirs -1.00 points (one seed)"
    on_images = {"only_first": 1300, "only_second": 1200, "num": 10_000, "points": -1.0, "standard_error": 0.5}
    assert lead_in_words({**long, "paired": on_images}) == (
        "25 epochs: ours over theirs -1.00 points "
        "(one seed; alone right: ours on 1,200 images, theirs on 1,300; standard error 0.50)"
    )
    (behind,) = leads_of(entries[:4], [("theirs", "ours")])
    assert "-1.25 points, 95% interval -4.43 to +1.93" in lead_in_words(behind)


def test_the_way_of_each_run_that_has_it_is_a_column() -> None:
    runs = [{"seed": 0}, {"seed": 1, "evaluations": {"0": 10.0, "12": 80.123}}]
    entries = [
        {"arm": "ours", "lr": 0.02, "runs": runs},
        {"arm": "theirs", "lr": 0.1, "runs": [{"seed": 0, "evaluations": {"5": 70.0, "12": 79.0}}]},
    ]
    assert evaluations_table(entries).splitlines() == [
        "| after epoch | `ours`, 0.02, seed 1 | `theirs`, 0.1, seed 0 |",
        "| --- | --- | --- |",
        "| 0 | 10.00% |  |",
        "| 5 |  | 70.00% |",
        "| 12 | 80.12% | 79.00% |",
    ]


def test_runs_of_another_recipe_are_not_joined() -> None:
    def entry(seeds: tuple[int, ...], top1: float, **recipe: Any) -> dict[str, Any]:
        losses = dict.fromkeys(("val_loss", "train_loss", "macs_ratio"), 0.5)
        runs = [{"seed": seed, "top1": top1, "base": 80.0, **losses} for seed in seeds]
        return {"arm": "ours", "epochs": 12, "lr": 0.1, "recipe": {"lr": 0.1, **recipe}, "runs": runs}

    both = joined(entry((1,), 81.0, compile=True, new=1), entry((0, 1), 84.0, compile=False))
    assert [(run["seed"], run["top1"]) for run in both["runs"]] == [(0, 84.0), (1, 81.0)]
    assert (both["top1"]["mean"], both["change"]["mean"], both["top1"]["n"]) == (82.5, 2.5, 2)
    with pytest.raises(ValueError, match=r"ours with 12 epochs .*\(momentum\)"):
        joined(entry((1,), 81.0, momentum=0.9), entry((0,), 84.0, momentum=0.8))


def test_a_table_says_what_trained_its_runs(tmp_path: Path) -> None:
    entry = {"base": {"top1": 80.0}, "before_cut": None, "after_cut": None, "macs_ratio": 1.0, "widths": [1]}
    folder = write_run(tmp_path / "run", {}, [80.0, 81.0], {**entry, "finished": {"top1": 81.0}})
    found = {"arm": "base", "epochs": 1, "lr": 0.1, **entry_of({0: folder})}
    found["runs"] = [dict(found["runs"][0]) for _ in range(4)]
    for run, processes, threads in zip(found["runs"], (1, 1, 1, 2), (1, 1, 2, 1), strict=True):
        run |= {"processes": processes, "threads": threads, "hardware": {"cpu": "a CPU"}, "versions": {"torch": "2"}}
    del found["runs"][0]["processes"]  # as in files of before
    text = table({"network": "src20", "data": "images", "entries": [found]}, "some.json", [found])
    machines = ("one core a run", "2 cores a run", "2 cores (2 processes) a run")
    assert "; ".join(f"a CPU, {cores}, torch 2" for cores in machines) + "." in text
