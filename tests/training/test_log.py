"""What a run leaves in its folder for people and for tables."""

import json
import logging
import threading
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from rr.errors import WriteError
from training import Evaluation, RunLog, World, logged_on_terminal, surroundings
from training.json_files import read_lines

FIRST, SECOND = (World(rank, rank, 2, torch.device("cpu")) for rank in (0, 1))
RECIPE = {"arch": "src20", "seed": 3}


def test_a_copy_without_git_is_told_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no git is found there
    monkeypatch.setenv("RESREP_COMMIT", "abc")
    assert surroundings(FIRST)["commit"] == "abc"
    monkeypatch.delenv("RESREP_COMMIT")
    assert surroundings(FIRST)["commit"] is None


def test_run_json_tells_where_the_figures_come_from(tmp_path: Path) -> None:
    RunLog(tmp_path, FIRST, RECIPE)
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["recipe"], run["seed"], run["processes"], run["device"]) == (RECIPE, 3, 2, "cpu")
    assert run["versions"].keys() == {"torch", "numpy", "python"}
    assert run["versions"]["torch"] == torch.__version__
    assert run["hardware"]["cores"] >= 1
    assert "commit" in run
    RunLog(tmp_path, FIRST, {"other": 1}, resume=True)
    resumed = json.loads((tmp_path / "run.json").read_text())
    assert (resumed["recipe"], resumed["started"]) == (RECIPE, run["started"])
    assert len(resumed["resumed"]) == 1


def test_what_a_conversion_is_asked_for_later_is_what_run_json_says(tmp_path: Path) -> None:
    RunLog(tmp_path, FIRST, {**RECIPE, "threshold": 0.01})
    RunLog(tmp_path, FIRST, {**RECIPE, "threshold": 1e-5, "other": 1}, resume=True)
    assert json.loads((tmp_path / "run.json").read_text())["recipe"] == {**RECIPE, "threshold": 1e-5}


def test_curves_have_the_published_tags(tmp_path: Path) -> None:
    with RunLog(tmp_path, FIRST, RECIPE) as log:
        log.curves("Train", Evaluation(50.0, 90.0, 1.5, 10), 100)
        log.curves("Val", Evaluation(60.0, 95.0, 1.25, 10), 200)
        log.scalars({"macs": 0.5}, 100)
    assert not [path for path in (tmp_path / "tensorboard").iterdir() if path.is_dir()]  # one run
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = events.Tags()["scalars"]
    assert {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags} == {
        "Top1-Acc/Train": [(100, 50.0)],
        "Top5-Acc/Train": [(100, 90.0)],
        "Loss/Train": [(100, 1.5)],
        "Top1-Acc/Val": [(200, 60.0)],
        "Top5-Acc/Val": [(200, 95.0)],
        "Loss/Val": [(200, 1.25)],
        "macs": [(100, 0.5)],
    }


def write_curves_where_none_can_be(folder: Path) -> None:
    """TensorBoard writes in a thread, so an error comes a few points later."""
    with RunLog(folder, FIRST, RECIPE) as log:
        (folder / "tensorboard").rename(folder / "elsewhere")  # at one blow: the thread may write into it meanwhile
        for step in range(1000):
            log.scalars({"macs": 0.5}, step)


def test_a_folder_that_is_gone_is_one_error_and_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[type] = []

    def hook(args: threading.ExceptHookArgs) -> None:
        shown.append(args.exc_type)

    monkeypatch.setattr(threading, "excepthook", hook)
    with pytest.raises(WriteError, match="tensorboard: No such file"):
        write_curves_where_none_can_be(tmp_path)
    assert threading.excepthook is hook
    with RunLog(tmp_path, FIRST, RECIPE):
        bug = threading.Thread(target=lambda: 1 / 0)
        bug.start()
        bug.join()
    assert shown == [ZeroDivisionError]


def test_the_settings_are_hyperparameters_of_the_same_run(tmp_path: Path) -> None:
    with RunLog(tmp_path, FIRST, {**RECIPE, "amp": False, "milestones": (1, 2), "teacher": None}):
        pass
    assert not [path for path in (tmp_path / "tensorboard").iterdir() if path.is_dir()]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["arch"].string_value == "src20"
    assert settings["seed"].number_value == 3
    assert settings["amp"].bool_value is False
    assert settings["milestones"].string_value == "(1, 2)"
    assert "teacher" not in settings


def test_rewind_drops_later_epochs_and_torn_lines(tmp_path: Path) -> None:
    with RunLog(tmp_path, FIRST, RECIPE) as log:
        for epoch in range(4):
            log.epoch({"epoch": epoch})
        with open(tmp_path / "metrics.jsonl", "a") as file:
            file.write('{"epoch": 1, "lo')
        log.rewind(2)
    assert read_lines(tmp_path / "metrics.jsonl") == [{"epoch": 0}, {"epoch": 1}, {"epoch": 2}]
    assert (tmp_path / "metrics.jsonl").read_text().endswith("}\n")


def test_log_is_appended_to_and_holds_what_libraries_say(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with RunLog(tmp_path, FIRST, RECIPE, resume=text == "two"):
            logging.getLogger("some.library").info("said %s", text)
        logging.getLogger("some.library").info("outside")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["said one", "said two"]


def test_a_stop_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), RunLog(tmp_path, FIRST, RECIPE):
        raise RuntimeError("no memory")
    assert "stopped by RuntimeError: no memory" in (tmp_path / "log.txt").read_text()


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    with RunLog(tmp_path / "run", SECOND, RECIPE) as log:
        log.curves("Val", Evaluation(60.0, 95.0, 1.25, 10), 200)
        log.scalars({"macs": 0.5}, 100)
        log.epoch({"epoch": 0})
        log.rewind(0)
        log.progress_bar(3, 0).close()
    assert not (tmp_path / "run").exists()


def test_what_torch_says_of_cuda_on_a_machine_without_a_gpu_is_left_out() -> None:
    logger, told = logging.getLogger("torch.utils.cpp_extension"), []
    handler = logging.Handler()
    handler.emit = told.append
    logger.addHandler(handler)
    try:
        with logged_on_terminal():
            logger.warning("No CUDA runtime is found, using CUDA_HOME='%s'", "/usr/local")
            logger.warning("another")
        logger.warning("No CUDA runtime is found, using CUDA_HOME='%s'", "/usr/local")
    finally:
        logger.removeHandler(handler)
    assert [record.msg.split(",")[0] for record in told] == ["another", "No CUDA runtime is found"]


def test_nothing_that_is_logged_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with logged_on_terminal(FIRST):
        logging.getLogger("data").warning("class \x1b[2Jcat\n  a table")
    assert capsys.readouterr().err == "class \\x1b[2Jcat\n  a table\n"


def test_other_ranks_say_nothing_on_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even warnings, which Python prints by itself where no handler is."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own
    with logged_on_terminal(SECOND):
        logging.getLogger("anything").warning("this once")
    assert capsys.readouterr().err == ""
    logging.getLogger("anything").warning("this once")
    assert "this once" in capsys.readouterr().err
