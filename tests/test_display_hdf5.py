"""The script end to end: what it says of each kind of file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from base_model import build_model, full_widths
from rr.weights import save_converted, save_hdf5
from rr.weights.networks import note_widths
from tests import scripts
from tests.scripts import Done

pytestmark = pytest.mark.filterwarnings("error")  # which a person would see above the table


def display(path: Path) -> Done:
    """Call the script from the file's folder."""
    return scripts.call("display_hdf5.py", path.name, cwd=path.parent)


def cells(output: str, name: str) -> list[str]:
    """The line of an array or a total, split into cells."""
    (line,) = [line for line in output.splitlines() if line.split(" ")[0] == name]
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_base_model(tmp_path: Path) -> None:
    state = build_model("lenet5bn").state_dict()
    state["conv1.bn.bias"] = torch.tensor([1.0] * 10 + [3.0] * 10)
    state["conv2.bn.bias"][7] = torch.inf
    save_hdf5(tmp_path / "a.hdf5", state, {"arch": "lenet5bn"})
    done = display(tmp_path / "a.hdf5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a.hdf5: a base model")
    assert "arch: lenet5bn" in done.stdout
    assert cells(done.stdout, "conv1.bn.bias") == ["conv1.bn.bias", "20", "2", "1", "1", "3", "20", "0", "0", "0"]
    assert cells(done.stdout, "conv2.bn.bias")[-1] == "1 values not finite"
    assert cells(done.stdout, "conv2.conv.weight")[1] == "50 x 20 x 5 x 5"
    assert cells(done.stdout, "conv") == ["conv", "2", "25,500", "102,000"]
    assert cells(done.stdout, "bn") == ["bn", "8", "280", "1,120"]
    values = 500 * 800 + 500 + 10 * 500 + 10
    assert cells(done.stdout, "classifier") == ["classifier", "4", f"{values:,}", f"{4 * values:,}"]
    assert cells(done.stdout, "all")[2] == f"{25_500 + 280 + values:,}"


def test_a_file_without_checksums_is_said_to_have_none(tmp_path: Path) -> None:
    state = build_model("lenet5bn").state_dict()
    save_hdf5(tmp_path / "ours.hdf5", state, {})
    with h5py.File(tmp_path / "others.hdf5", "w") as file:
        for name, value in state.items():
            file[name] = value.numpy()
    assert "checksum" not in display(tmp_path / "ours.hdf5").stderr
    assert "others.hdf5 has no checksum" in display(tmp_path / "others.hdf5").stderr


def test_counts_and_totals_of_the_original(tmp_path: Path) -> None:
    """Positive, negative, zero and near-zero entries; kernels, vectors, and mu, var, gamma, beta, bias."""
    state = build_model("lenet5bn").state_dict()
    state["conv1.bn.bias"] = torch.tensor([1.0, -2.0, 0.0, 1e-6, -1e-6] * 4)
    save_hdf5(tmp_path / "a.hdf5", state, {})
    output = display(tmp_path / "a.hdf5").stdout
    assert cells(output, "conv1.bn.bias")[-4:] == ["8", "8", "4", "12"]
    for name in ("mu", "var", "gamma", "beta"):
        assert cells(output, name)[1:3] == ["2", "70"]
    assert cells(output, "bias")[1:3] == ["2", "510"]
    assert cells(output, "kernels")[1:3] == ["4", f"{20 * 25 + 50 * 20 * 25 + 500 * 800 + 10 * 500:,}"]
    assert cells(output, "vectors")[1:3] == ["10", f"{8 * 35 + 510:,}"]


@pytest.mark.slow
def test_other_formats_say_what_they_are(tmp_path: Path) -> None:
    model = build_model("src20", folded=True)
    torch.save(build_model("src20").state_dict(), tmp_path / "state.pth")
    save_converted(tmp_path / "a.hdf5", note_widths(model, full_widths("src20")), {"arch": "src20"})
    recipe = {"arch": "src20", "dataset": "digits", "epochs": 9}
    run = {"recipe": recipe, "epoch": 3, "step": 70, "model": build_model("src20").state_dict(), "optimizer": {}}
    torch.save(run, tmp_path / "latest.pth")
    said = {name: display(tmp_path / name).stdout for name in ("state.pth", "a.pth", "latest.pth")}
    assert said["state.pth"].startswith("state.pth: a base model")
    assert said["a.pth"].startswith("a.pth: a converted model")
    assert "deps (21 widths)" in said["a.pth"]
    assert said["latest.pth"].startswith("latest.pth: a checkpoint of a run")
    assert "epochs done: 3\nsteps done: 70\narch: src20" in said["latest.pth"]


def test_model_in_training(tmp_path: Path) -> None:
    compactor = np.eye(6, dtype=np.float32).reshape(6, 6, 1, 1)
    compactor[1] *= 9e-6
    compactor[2] *= 1.1e-5
    compactor[4] = 0
    arrays = {
        "conv1.conv.weight": np.ones((6, 1, 5, 5), np.float32),
        "conv1.compactor.pwc.weight": compactor,
        "conv1.compactor.mask": np.array([1, 0, 0, 1, 0, 1], np.float32),
        "extra": np.float64(2.5),
        "empty": np.zeros((0, 3)),
    }
    save_hdf5(tmp_path / "a.hdf5", arrays, {})
    done = display(tmp_path / "a.hdf5")
    assert done.returncode == 0, done.stderr
    assert "a model in training" in done.stdout
    assert cells(done.stdout, "conv1.compactor.pwc.weight")[-1] == "2 of 6 rows dead (norm < 1e-05)"
    assert cells(done.stdout, "conv1.compactor.mask")[-1] == "3 of 6 ones"
    assert cells(done.stdout, "extra")[1:3] == ["scalar", "2.5"]
    assert cells(done.stdout, "compactor") == ["compactor", "1", "36", "144"]
    assert cells(done.stdout, "mask") == ["mask", "1", "6", "24"]
    assert cells(done.stdout, "other")[1] == "2"


def test_converted_model(tmp_path: Path) -> None:
    save_hdf5(tmp_path / "a.hdf5", build_model("src20", folded=True).state_dict(), {}, deps=full_widths("src20"))
    done = display(tmp_path / "a.hdf5")
    assert "a converted model" in done.stdout
    assert "deps (21 widths): 16, 16, 16," in done.stdout
    # Aligned: every shape of the table starts in the same column.
    lines = done.stdout.splitlines()
    start = next(line.index("shape") for line in lines if line.startswith("name"))
    table = [line for line in lines if line.startswith(("stage", "linear"))]
    assert len(table) == 44
    assert all(line[start - 1] == " " and line[start].isdigit() for line in table)


@pytest.mark.parametrize("content", [None, "truncated"])
def test_bad_file_is_one_line(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    if content == "truncated":
        save_hdf5(path, {"conv1.conv.weight": np.ones((20, 3, 5, 5))}, {})
        path.write_bytes(path.read_bytes()[:-500])
    done = display(path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_what_is_no_file_of_weights_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run.json").write_text("{}")
    assert "run is a folder: there is no file of weights in it" in display(tmp_path / "run").stderr
    (tmp_path / "run" / "finish.hdf5").write_text("")
    assert "run is a folder: give a file in it, run/finish.hdf5, say" in display(tmp_path / "run").stderr
    done = display(tmp_path / "run.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "run.json is no file of weights: give one of .hdf5" in done.stderr


def test_an_attribute_cannot_steer_the_terminal(tmp_path: Path) -> None:
    save_hdf5(tmp_path / "a.hdf5", {"w": torch.ones(2)}, {"arch": "src20\x1b[2J\x07é"})
    assert "arch: src20\\x1b[2J\\x07é" in display(tmp_path / "a.hdf5").stdout
