"""The script from its command line to its files."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import train_base_model
from base_model import build_any, build_model
from training import loop


def arguments(folder: Path, *more: str) -> list[str]:
    words = "-a lenet5bn --dataset digits --max-steps 2 --batch-size 16 --device cpu --output-dir"
    return [*words.split(), str(folder), *more]


def exit_code(words: list[str]) -> int:
    with pytest.raises(SystemExit) as stopped:
        train_base_model.main(words)
    return stopped.value.code


@pytest.mark.slow
def test_trains_and_does_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_base_model.main(arguments(tmp_path / "run"))
    with h5py.File(tmp_path / "run" / "finish.hdf5") as file:
        assert file["conv1.conv.weight"].shape == (20, 1, 5, 5)
        sizes = {"num_classes": 10, "in_channels": 1, "image_size": 28}
        attributes = {name: value for name, value in file.attrs.items() if name != "sha256"}
        assert attributes == {"arch": "lenet5bn", "dataset": "digits", **sizes}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]["max_steps"] == 2

    before = (tmp_path / "run" / "log.txt").read_text()
    train_base_model.main(arguments(tmp_path / "run"))
    assert "finished run" in capsys.readouterr().err
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
        (["-a", "lenet"], "lenet5bn"),
        (["-a", "torchvision/resnet18"], "takes images of 3 channels, not 1"),
        (["-a", "nowhere.py:build"], "there is no file nowhere.py"),
        (["--new-classifier"], "--weights"),
        (["--weights", "nowhere.pth"], "there is no file nowhere.pth"),
        (["--weights", "default"], "no weights to download for 'lenet5bn'"),
        (["--distill", "0.5"], "give --weights too"),
        (["--distill", "2"], "from 0 to 1"),
        (["--distill", "0.5", "--teacher", "nowhere.pth"], "there is no file nowhere.pth"),
        (["--teacher", "nowhere.pth"], "teacher is 'nowhere.pth': needs a distill greater than 0"),
        (["--cuda-graph"], "on one CUDA device only: leave --cuda-graph out"),
        (["--compile-mode", "reduce-overhead"], "is for --compile: add it"),
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
    shown = capsys.readouterr().out
    assert "sres50_train" in shown
    assert "default: sres50)" not in shown  # nobody can leave -a out


def test_a_network_from_anywhere_needs_its_data_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["-a", "torchvision/resnet18"]) == 2
    assert "--dataset" in capsys.readouterr().err
    assert exit_code(["--lr", "1"]) == 2
    assert "-a is required" in capsys.readouterr().err


def first_weights(folder: Path) -> dict[str, np.ndarray]:
    with h5py.File(folder / "init.hdf5") as file:
        return {name: file[name][()] for name in file}


@pytest.mark.slow
def test_a_function_in_a_file_is_fine_tuned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from base_model import build_model\n"
        "def build(num_classes, in_channels, image_size):\n"
        "    return build_model('lenet5bn', None, num_classes, in_channels, image_size)\n"
    )
    trained = build_model("lenet5bn", num_classes=7).state_dict()
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in trained.items()}}, tmp_path / "w.pth")
    weights = ["-a", f"{path}:build", "--image-size", "28", "--weights", str(tmp_path / "w.pth")]
    folder = tmp_path / "run"

    assert exit_code(arguments(folder, *weights)) == 2
    assert "7 classes, the data has 10" in capsys.readouterr().err
    assert not folder.exists()

    assert exit_code(arguments(folder, *weights, "--new-classifier", "--distill", "0.5")) == 2
    assert "comes without its classifier" in capsys.readouterr().err
    assert not folder.exists()

    train_base_model.main(arguments(folder, *weights, "--new-classifier"))
    (line,) = [line for line in (folder / "log.txt").read_text().splitlines() if "without its classifier" in line]
    assert line.endswith("linear2.weight, linear2.bias")
    for name, array in first_weights(folder).items():
        assert np.array_equal(array, trained[name].numpy()) == (not name.startswith("linear2")), name
    with h5py.File(folder / "finish.hdf5") as file:
        assert file.attrs["arch"] == f"{path}:build"

    (tmp_path / "w.pth").unlink()  # the run is finished, and needs it no more
    train_base_model.main(arguments(folder, *weights, "--new-classifier"))
    assert "finished run" in capsys.readouterr().err
    assert exit_code(arguments(folder, *weights[:-2])) == 2
    assert "weights: there" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("by_another", [False, True])
def test_what_teaches_a_run_teaches_it_after_a_restart_too(
    by_another: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights that it starts from, or others: in both cases it needs nothing but its own folder to go on."""

    def final(folder: Path) -> dict[str, np.ndarray]:
        with h5py.File(folder / "finish.hdf5") as file:
            return {name: file[name][()] for name in file}

    torch.manual_seed(1)  # not the run's own seed, which would give a network without these weights the same
    for name in ("w.pth", "teacher.pth"):
        torch.save(build_model("lenet5bn").state_dict(), tmp_path / name)
    settings = ["--weights", str(tmp_path / "w.pth"), "--checkpoint-interval", "1", "--max-steps", "4"]
    by_itself = [*settings, "--distill", "0.9", "--temperature", "2"]
    taught = [*by_itself, *(["--teacher", str(tmp_path / "teacher.pth")] if by_another else [])]
    train_base_model.main(arguments(tmp_path / "untaught", *(by_itself if by_another else settings)))
    train_base_model.main(arguments(tmp_path / "whole", *taught))
    untaught = final(tmp_path / "untaught")
    assert any((value != untaught[name]).any() for name, value in final(tmp_path / "whole").items())

    real = loop.save_run

    def save_and_stop(*of_run: object) -> None:
        real(*of_run)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_run", save_and_stop)
        assert exit_code(arguments(tmp_path / "stopped", *taught)) == 130
    for name in ("w.pth", "teacher.pth"):
        (tmp_path / name).unlink()
    train_base_model.main(arguments(tmp_path / "stopped", *taught, "-c", "continue"))
    for name, value in final(tmp_path / "whole").items():
        assert np.array_equal(value, final(tmp_path / "stopped")[name]), name


@pytest.mark.slow
def test_what_torchvision_offers_is_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = build_any("torchvision/squeezenet1_1").state_dict()
    monkeypatch.setattr("experiments.run.pretrained_weights", lambda arch: {"torchvision/squeezenet1_1": state}[arch])
    words = "-a torchvision/squeezenet1_1 --dataset synthetic --weights default --new-classifier --image-size 32"
    train_base_model.main(arguments(tmp_path / "run", *words.split()))
    first = first_weights(tmp_path / "run")
    assert first["classifier.1.weight"].shape == (10, 512, 1, 1)
    assert np.array_equal(first["features.0.weight"], state["features.0.weight"].numpy())


@pytest.mark.long
def test_auxiliary_classifiers_are_trained(tmp_path: Path) -> None:
    words = ["-a", "torchvision/googlenet", "--dataset", "synthetic", "--image-size", "32", "--max-steps", "1"]
    train_base_model.main(arguments(tmp_path / "run", *words))
    first = first_weights(tmp_path / "run")
    with h5py.File(tmp_path / "run" / "finish.hdf5") as file:
        for name in ("fc.weight", "aux1.fc2.weight", "aux2.conv.conv.weight"):
            assert not np.array_equal(file[name][()], first[name])
