"""The script from its command line to its files."""

import json
from pathlib import Path

import h5py
import pytest

import train_base_model


def arguments(folder: Path, *more: str) -> list[str]:
    words = "-a lenet5bn --dataset digits --max-steps 2 --batch-size 16 --device cpu --output-dir"
    return [*words.split(), str(folder), *more]


def exit_code(words: list[str]) -> int:
    with pytest.raises(SystemExit) as stopped:
        train_base_model.main(words)
    return stopped.value.code


def test_trains_and_does_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_base_model.main(arguments(tmp_path / "run"))
    with h5py.File(tmp_path / "run" / "finish.hdf5") as file:
        assert file["conv1.conv.weight"].shape == (20, 1, 5, 5)
        sizes = {"num_classes": 10, "in_channels": 1, "image_size": 28}
        assert dict(file.attrs) == {"arch": "lenet5bn", "dataset": "digits", **sizes}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]["max_steps"] == 2

    before = (tmp_path / "run" / "log.txt").read_text()
    train_base_model.main(arguments(tmp_path / "run"))
    assert "finished run" in capsys.readouterr().out
    assert (tmp_path / "run" / "log.txt").read_text() == before
    assert exit_code(arguments(tmp_path / "run", "--lr", "0.5")) == 2
    assert "lr: there 0.01, now 0.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--lr", "0"], "lr"),
        (["--device", "gpu"], "device"),
        (["--dataset", "nothing"], "nothing"),
        (["--epoch", "3"], "--epoch"),
        (["-c", "again"], "again"),
        (["--image-size", "8"], "image"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert exit_code(arguments(tmp_path / "run", *more)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert words in line
    assert not (tmp_path / "run").exists()


def test_help_is_there_for_every_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["-a", "sres50", "--help"]) == 0
    assert "sres50_train" in capsys.readouterr().out
