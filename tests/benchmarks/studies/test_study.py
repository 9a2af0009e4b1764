"""A study: which runs, what its file keeps, and its leads image by image."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.studies import runs, short_schedules, study
from benchmarks.studies.results import over_seeds
from benchmarks.studies.short_schedules import ARMS
from tests.benchmarks.studies.helpers import call
from training import Paired


def test_another_network_has_a_file_of_its_own(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "ROOT", tmp_path)
    of_one = study.Study("", ARMS, "short.json", (1,))
    words = ["--data-dir", "images", "--bases", str(place / "bases"), "--runs", "runs", "--seeds", "0", "--arms", "l1"]
    for network, file in (("src20", "short.json"), ("src56", "short_src56.json")):
        options = study.parse_arguments(of_one, [*words, "-a", network])
        assert options.output == tmp_path / "results" / file
        (run,) = study.wanted_runs(of_one, options)
        assert run.command[:3] == (study.RIVALS, "-a", network)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--seeds", "5"], "s5"),
        (["--jobs", "0"], "--jobs 0"),
        (["--processes", "0"], "--processes 0"),
        (["--threads", "0"], "--threads 0"),
        (["--epochs", "0"], "at least 1"),
    ],
)
def test_bad_input_is_one_line(place: Path, more: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        short_schedules.main(call(place, *more))
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("forked_runs")
def test_what_a_file_keeps_is_not_trained_again(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, folders = tmp_path / "kept.json", [str(tmp_path / name) for name in ("here", "there")]
    words = [*call(place, "--epochs", "1", "--keep", "--output", str(output)), "--arms"]
    short_schedules.main([*words, "l1", "--seeds", "0", "--runs", folders[0]])
    (first,) = json.loads(output.read_text())["entries"]
    short_schedules.main([*words, "l1", "scratch", "--seeds", "0", "1", "--runs", folders[1]])
    trained = sorted(path.name for path in Path(folders[1]).iterdir() if path.is_dir())
    assert trained == ["l1-e1-lr0.05-s1", "scratch-e1-lr0.1-s0", "scratch-e1-lr0.1-s1"]  # no seed 0 of l1
    l1, scratch = json.loads(output.read_text())["entries"]
    assert [run["seed"] for run in l1["runs"]] == [run["seed"] for run in scratch["runs"]] == [0, 1]
    assert l1["runs"][0] == first["runs"][0]
    assert l1["top1"] == over_seeds([run["top1"] for run in l1["runs"]])

    monkeypatch.setattr(runs, "start", lambda *_: pytest.fail("started again"))
    whole = output.read_text()
    short_schedules.main([*words, "scratch", "--seeds", "1", "--runs", folders[1]])
    assert output.read_text() == whole
    capsys.readouterr()
    for more, wrong in ((["-a", "src56"], "network src8, not src56"), (["--data-name", "birds"], "not birds")):
        with pytest.raises(SystemExit) as stopped:
            short_schedules.main([*words, "l1", "--seeds", "0", *more, "--runs", folders[1]])
        assert stopped.value.code == 2
        assert wrong in capsys.readouterr().err


def test_leads_of_one_seed_are_compared_where_the_runs_are_and_else_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def lead(arm: str, points: float, seeds: int = 1) -> dict[str, Any]:
        found = {"epochs": 12, "arm": arm, "arm_lr": 0.1, "rival": "theirs", "rival_lr": 0.2, "seeds": [*range(seeds)]}
        return {**found, "points": {"mean": points}, "spread": None if seeds == 1 else 0.1}

    asked = []

    def measure(arch: str, dataset: str, data_dir: Path, pairs: list[tuple[Path, Path]], hold_out: int) -> list[Paired]:
        assert hold_out == 7
        asked.extend(pairs)
        return [Paired(1, 2, 10) for _ in pairs]

    monkeypatch.setattr(study, "paired_runs", measure)
    groups = {(12, name, lr): {0: Path(name)} for name, lr in (("ours", 0.1), ("many", 0.1), ("theirs", 0.2))}
    leads = [lead("ours", 1.0), lead("many", 2.0, seeds=2), lead("gone", 3.0), lead("trained anew", 4.0)]
    before = [{**lead(*of), "paired": of} for of in (("ours", 1.0), ("gone", 3.0), ("trained anew", 5.0))]
    options = SimpleNamespace(arch="src20", data_dir=Path("images"))
    of_held_out = study.Study("", ARMS, "short.json", (12,), hold_out=7)
    found = study.with_pairs(leads, groups, before, of_held_out, options)
    assert asked == [(Path("theirs"), Path("ours"))]
    assert [one.get("paired") for one in found] == [Paired(1, 2, 10).to_dict(), None, ("gone", 3.0), None]
    assert [{**one, "paired": None} for one in found] == [{**one, "paired": None} for one in leads]
