"""What happens to a folder that holds a run."""

import json
import multiprocessing
from pathlib import Path

import pytest

from rr.errors import InputError
from training import RunState, locked, prepare, stored_recipe
from training.checkpoint_files import save

RECIPE = {"arch": "src20", "lr": 0.1, "milestones": [2, 3], "output_dir": "x", "workers": None}


def fill(folder: Path, *names: str, recipe: dict | None = RECIPE) -> None:
    folder.mkdir(exist_ok=True)
    if recipe is not None:
        (folder / "run.json").write_text(json.dumps({"recipe": recipe}))
    for name in names:
        (folder / name).write_text("")


@pytest.mark.parametrize("mode", [None, "fs", "continue"])
def test_new_folder_starts(tmp_path: Path, mode: str | None) -> None:
    assert prepare(tmp_path / "new", RECIPE, mode) is RunState.START


def test_unfinished_run_needs_a_decision(tmp_path: Path) -> None:
    fill(tmp_path, "latest.pth", "metrics.jsonl", "epoch-5.hdf5", "log.txt")
    with pytest.raises(ValueError, match="-c continue"):
        prepare(tmp_path, RECIPE)
    assert prepare(tmp_path, RECIPE, "continue") is RunState.RESUME
    assert len(list(tmp_path.iterdir())) == 5
    assert prepare(tmp_path, RECIPE, "fs") is RunState.START
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [None, "continue"])
def test_finished_run_is_finished(tmp_path: Path, mode: str | None) -> None:
    fill(tmp_path, "latest.pth", "finish.hdf5")
    assert prepare(tmp_path, RECIPE, mode) is RunState.FINISHED
    assert (tmp_path / "finish.hdf5").exists()


@pytest.mark.parametrize("mode", [None, "continue"])
@pytest.mark.parametrize("finished", [False, True])
def test_other_recipe_is_refused_with_what_differs(tmp_path: Path, mode: str | None, finished: bool) -> None:
    fill(tmp_path, "latest.pth", *(["finish.hdf5"] if finished else []))
    other = {**RECIPE, "lr": 0.2, "milestones": [2, 4], "flops_target": 0.5}
    with pytest.raises(ValueError, match="another recipe") as refused:
        prepare(tmp_path, other, mode)
    for words in ("lr: there 0.1, now 0.2", "[2, 3], now [2, 4]", "flops_target: there unset, now 0.5"):
        assert words in str(refused.value)
    assert "arch" not in str(refused.value)
    assert prepare(tmp_path, other, "fs") is RunState.START


@pytest.mark.parametrize(("name", "state"), [("latest.pth", RunState.RESUME), ("finish.hdf5", RunState.FINISHED)])
def test_a_setting_that_a_run_is_older_than_counts_as_its_default(tmp_path: Path, name: str, state: RunState) -> None:
    defaults = {"death_steps": 0, "score": "norm", "lr": 0.3, "include": []}
    fill(tmp_path, name)
    newer = {**RECIPE, "death_steps": 0, "score": "norm", "include": []}
    assert prepare(tmp_path, newer, "continue", defaults) is state
    for other in ({"death_steps": 9}, {"score": "taylor"}, {"lr": 0.3}):  # lr was written down: the default isn't asked
        with pytest.raises(ValueError, match="another recipe") as refused:
            prepare(tmp_path, newer | other, "continue", defaults)
        assert str(refused.value).count(": there") == 1
    with pytest.raises(ValueError, match="score: there unset"):
        prepare(tmp_path, newer, "continue")


def test_what_differs_is_named_as_it_is_typed(tmp_path: Path) -> None:
    fill(tmp_path, "latest.pth", recipe={**RECIPE, "base_weights": "a", "warmup_steps": 5})
    other = {**RECIPE, "lr": 0.2, "base_weights": "b", "warmup_steps": 7}
    options = {"lr": "--lr", "base_weights": "--weights"}
    for mode, advice in (("continue", "leave these options out"), (None, "give '-c continue' and no other options")):
        with pytest.raises(ValueError, match=advice) as refused:
            prepare(tmp_path, other, mode, options=options)
        assert '(--lr: there 0.1, now 0.2; --weights: there "a", now "b"):' in str(refused.value)
    with pytest.raises(ValueError, match="warmup_steps: there 5, now 7"):
        prepare(tmp_path, {**other, "lr": 0.1, "base_weights": "a"}, "continue", options=options)


def test_of_many_settings_that_differ_some_are_named(tmp_path: Path) -> None:
    fill(tmp_path, "latest.pth")
    with pytest.raises(ValueError, match=r"b: there unset, now 1; .*; 2 more\)"):
        prepare(tmp_path, {**RECIPE, **dict.fromkeys("bcdefgh", 1)}, "continue")


def test_fields_that_change_no_result_may_differ(tmp_path: Path) -> None:
    fill(tmp_path, "latest.pth")
    assert prepare(tmp_path, {**RECIPE, "output_dir": "y", "workers": 3}, "continue") is RunState.RESUME


def test_run_without_checkpoint_starts_again(tmp_path: Path) -> None:
    fill(tmp_path, "init.hdf5", "metrics.jsonl")
    assert prepare(tmp_path, {**RECIPE, "lr": 0.2}) is RunState.START
    assert list(tmp_path.iterdir()) == []


def test_files_of_others_stay(tmp_path: Path) -> None:
    fill(tmp_path, "latest.pth", "notes.md", "plot.png")
    prepare(tmp_path, RECIPE, "fs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.md", "plot.png"]


def test_weights_of_unknown_origin_are_not_deleted(tmp_path: Path) -> None:
    fill(tmp_path, "finish.hdf5", recipe=None)
    assert prepare(tmp_path, RECIPE) is RunState.FINISHED
    with pytest.raises(ValueError, match="move"):
        prepare(tmp_path, RECIPE, "fs")
    assert (tmp_path / "finish.hdf5").exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        prepare(tmp_path / "file", RECIPE)


def checkpoint(folder: Path, recipe: dict) -> None:
    """A whole checkpoint of a run with this recipe."""
    parts = {name: {} for name in ("meter", "model", "optimizer", "scheduler")}
    save(folder / "latest.pth", {**parts, "recipe": recipe, "callbacks": [], "epoch": 1, "step": 5})


@pytest.mark.parametrize("text", [None, "", "null", '{"recipe": null}', "\0" * 20])
def test_without_its_run_json_a_run_has_the_recipe_of_its_checkpoint(
    tmp_path: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint(tmp_path, RECIPE)
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    assert stored_recipe(tmp_path) == RECIPE
    with pytest.raises(InputError, match=r"lr: there 0\.1, now 0\.5"):
        prepare(tmp_path, {**RECIPE, "lr": 0.5}, "continue")
    caplog.clear()
    assert prepare(tmp_path, RECIPE, "continue") is RunState.RESUME
    assert caplog.messages == [] if text is None else "run.json is damaged" in caplog.text


def test_the_checkpoint_says_what_the_run_is_whatever_run_json_says(tmp_path: Path) -> None:
    fill(tmp_path, recipe={**RECIPE, "lr": 0.5})
    checkpoint(tmp_path, RECIPE)
    with pytest.raises(InputError, match=r"lr: there 0\.1, now 0\.5"):
        prepare(tmp_path, {**RECIPE, "lr": 0.5}, "continue")


def test_an_earlier_checkpoint_is_one_too(tmp_path: Path) -> None:
    fill(tmp_path)
    checkpoint(tmp_path, RECIPE)
    (tmp_path / "latest.pth").rename(tmp_path / "latest-1.pth")
    assert prepare(tmp_path, RECIPE, "continue") is RunState.RESUME


@pytest.mark.parametrize("mode", ["continue", "fs"])
def test_what_a_kill_left_goes_at_the_next_start(mode: str, tmp_path: Path) -> None:
    fill(tmp_path, "latest.pth", ".init.hdf5.123.tmp", "latest.pth.77.new", "result.json", "notes.md")
    prepare(tmp_path, RECIPE, mode)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == ({"latest.pth", "result.json", "run.json", "notes.md"} if mode == "continue" else {"notes.md"})


@pytest.mark.parametrize("mode", [None, "continue", "fs"])
def test_what_a_kill_left_before_there_was_a_run_goes_as_well(mode: str | None, tmp_path: Path) -> None:
    fill(tmp_path, "run.json.77.new", recipe=None)
    assert prepare(tmp_path, RECIPE, mode) is RunState.START
    assert not list(tmp_path.iterdir())
    assert prepare(tmp_path / "new", RECIPE, mode) is RunState.START


@pytest.mark.parametrize("mode", [None, "continue", "fs"])
def test_files_of_others_that_look_like_leftovers_stay(mode: str | None, tmp_path: Path) -> None:
    names = {"config.new", ".editor.tmp", ".notes.txt.5.tmp", "weights.safetensors"}
    fill(tmp_path, *names, "a.hdf5.77.new", recipe=None)
    prepare(tmp_path, RECIPE, mode)
    assert {path.name for path in tmp_path.iterdir()} == {*names, "a.hdf5.77.new"}  # no run is in the folder
    fill(tmp_path, "latest.pth")
    prepare(tmp_path, RECIPE, mode or "continue")
    assert names <= {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "a.hdf5.77.new").exists()


def hold(folder: Path, held: object, let_go: object) -> None:
    with locked(folder):
        held.set()
        let_go.wait(60)


def test_two_runs_cannot_work_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.run_folder.LOCK_SECONDS", 0.1)
    context = multiprocessing.get_context("fork")
    held, let_go = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path / "run", held, let_go))
    process.start()
    assert held.wait(60)
    with pytest.raises(InputError, match="another process is at work"), locked(tmp_path / "run"):
        pass
    process.kill()  # a lock goes with its process
    process.join()
    with locked(tmp_path / "run"):
        pass


def test_a_threshold_may_be_lowered_until_the_conversion_is_done(tmp_path: Path) -> None:
    """A conversion that refuses it comes after all of the training, which was lost then."""
    fill(tmp_path, "finish.hdf5", recipe={**RECIPE, "threshold": 0.01})
    assert prepare(tmp_path, {**RECIPE, "threshold": 1e-5}, "continue") is RunState.FINISHED
    (tmp_path / "finish_converted.hdf5").touch()
    with pytest.raises(InputError, match=r"threshold: there 0\.01, now 1e-05"):
        prepare(tmp_path, {**RECIPE, "threshold": 1e-5}, "continue")
