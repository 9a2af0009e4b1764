"""The rows of the main table: their arms, the rates that a search found, and how they are trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.studies import main, rivals, study
from benchmarks.studies.main import ROWS, arms_of, study_of
from benchmarks.studies.results import over_seeds
from rr.exp_resrep import parse_arguments


@pytest.mark.parametrize("name", ROWS)
def test_bar_c_and_every_rival_have_what_ours_has_besides_pruning(name: str) -> None:
    arms = arms_of(ROWS[name], {})
    assert {"base", "base-all", "ours"} <= set(arms)
    for arm in (arm for name, arm in arms.items() if name not in ("base", "scratch")):
        assert arm.options[arm.options.index("--distill") + 1] == "0.5"
    assert set(arms["base-all"].options) - set(arms["base"].options) == {"--distill", "0.5"}
    pruned = [arm for name, arm in arms.items() if not name.startswith("base")]
    assert all(f"{ROWS[name].target:g}" in arm.options for arm in pruned)
    assert {arm.more_epochs for name, arm in arms.items() if name != "scratch"} == {0}


def test_a_row_takes_the_rates_of_its_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "ROOT", tmp_path)
    found = [
        {"arm": arm, "epochs": 25, "lr": lr, "top1": over_seeds([top1])}
        for arm, lr, top1 in (("ours", 0.02, 80.0), ("ours", 0.05, 90.0), ("l1", 0.1, 70.0))
    ]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "main_src20_47_rates.json").write_text(json.dumps({"entries": found}))
    row, search = study_of("src20-47", is_search=False), study_of("src20-47", is_search=True)
    assert (row.arms["ours"].lr, row.arms["l1"].lr, row.arms["base"].lr) == (0.05, 0.1, 0.02)
    assert (row.hold_out, row.seeds, row.output) == (0, tuple(range(8)), "main_src20_47.json")
    assert (search.hold_out, search.seeds, search.output) == (5000, (0,), "main_src20_47_rates.json")
    assert search.arms["ours"].lr == 0.02


def test_runs_are_of_the_rows_network_data_and_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[study.Study, list[str]]] = []
    monkeypatch.setattr(main, "run_study", lambda *arguments: asked.append(arguments))
    words = ["--data-dir", str(tmp_path), "--bases", str(tmp_path / "bases"), "--runs", str(tmp_path / "runs")]
    for seed in range(3):
        (tmp_path / f"bases/s{seed}").mkdir(parents=True)
        (tmp_path / f"bases/s{seed}/finish.hdf5").touch()
    main.main(["src20-fashion", *words])
    main.main(["src20-fashion", *words, "--rates", "--arms", "ours"])
    (row, its), (search, of_search) = asked
    runs = study.wanted_runs(row, study.parse_arguments(row, its))
    scratch = {run.arm: run for run in runs}["scratch"]
    assert scratch.command[scratch.command.index("--epochs") + 1] == "65"
    assert scratch.epochs == 25  # under which its rivals find it
    assert all(run.command[1:5] == ("-a", "src20", "--dataset", "fashion_mnist") for run in runs)
    assert len(runs) == 3 * len(row.arms)
    tried = study.wanted_runs(search, study.parse_arguments(search, of_search))
    assert [run.lr for run in tried] == [0.01, 0.02, 0.05, 0.1]
    assert all(run.command[run.command.index("--hold-out") + 1] == "5000" for run in tried)


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), ([], 2), (["src99-47"], 2), (["src20-47", "--foo"], 2)])
def test_the_command_line(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main.main(words)
    assert stopped.value.code == code
    said = capsys.readouterr()
    assert "src56-47" in said.out + said.err or "--foo" in said.err or "required" in said.err


def test_the_scripts_take_every_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(rivals, "run_rival", lambda recipe, rival, call: taken.append((recipe, rival)))
    for name, row in ROWS.items():
        for arm in study_of(name, is_search=False).arms.values():
            words = ["-a", row.network, "--dataset", row.dataset, *study.COMMON, *arm.options, "--lr", str(arm.lr)]
            if arm.script == study.PRUNE:
                assert parse_arguments(words)[0].arch == row.network
            else:
                rivals.main([*words, "--weights", "base.hdf5"])
    assert {rival.how for _, rival in taken} == {"unpruned", "l1", "taylor", "torch-pruning", "scratch"}
    assert {rival.sparse_share for _, rival in taken if rival.how == "torch-pruning"} == {0.5, 0.25}
