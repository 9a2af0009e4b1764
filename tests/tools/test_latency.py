"""Two files timed against each other by the command line: what is written, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from base_model import build_model
from experiments.latency.measuring import opened
from rr import InputError
from rr.latency import rounds
from rr.weights import save_converted, save_hdf5
from rr.weights.networks import note_widths
from tests import scripts

TINY = ("--batch-sizes", 2, "--threads", 1, "--seconds", 0)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a base network's file and a pruned one's."""
    torch.manual_seed(0)
    save_hdf5(tmp_path / "base.hdf5", build_model("lenet5bn").state_dict(), {"arch": "lenet5bn"})
    narrow = note_widths(build_model("lenet5bn", [13, 20, 100], folded=True).eval(), [13, 20, 100])
    save_converted(tmp_path / "slim.hdf5", narrow, {"arch": "lenet5bn", "in_channels": 1, "image_size": 28})
    return tmp_path


@pytest.mark.long
@pytest.mark.slow
def test_both_networks_in_every_setting_and_layer(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "BLOCK_S", 0)
    options = ("--runtimes", "eager", "onnxruntime", "--output", "new/out.csv", *TINY)
    done = scripts.call("tools/latency.py", "base.hdf5", "slim.hdf5", *options, cwd=files)
    assert done.returncode == 0, done.stderr
    assert "measuring eager, bfloat16, 1 thread, batch 2 (2 of 4)\n" in done.stderr
    assert "constant folding" not in done.stderr  # what an export tells of each of its passes
    assert "left out: onnxruntime in bfloat16: ONNX Runtime has no convolutions in bfloat16 on the CPU" in done.stdout
    rows = list(csv.DictReader((files / "new" / "out.csv").read_text().splitlines()))
    settings = [(row["runtime"], row["precision"], row["infer_batch_size"]) for row in rows[1::2]]
    assert settings == [
        ("eager", "float32", "2"),
        ("eager", "bfloat16", "2"),
        ("onnxruntime", "float32", "2"),
    ]
    assert {row["model"] for row in rows[::2]} == {"base.hdf5"}
    assert all(float(row["infer_step_time"]) > 0 for row in rows)
    layers = list(csv.DictReader((files / "new" / "out_layers.csv").read_text().splitlines()))
    assert (layers[0]["base_widths"], layers[0]["pruned_widths"]) == ("1->20", "1->13")
    assert (files / "new" / "out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_what_is_refused(files: Path) -> None:
    def said(*options: object) -> str:
        done = scripts.call("tools/latency.py", *options, "--runtimes", "eager", *TINY, cwd=files)
        assert done.returncode == 2
        return done.stderr.splitlines()[-1]

    assert "must end in .csv" in said("base.hdf5", "slim.hdf5", "--output", "a.png")
    assert "give the base network's file first" in said("slim.hdf5", "base.hdf5")
    assert "there is no file none.hdf5" in said("none.hdf5", "base.hdf5", "--output", "a.png")
    swallowed = scripts.call("tools/latency.py", "--batch-sizes", 1, "base.hdf5", "slim.hdf5", cwd=files)
    assert "(--batch-sizes takes all values that follow it: put BASE PRUNED first)" in swallowed.stderr


def test_a_network_that_one_of_the_files_names_is_the_others_too(files: Path) -> None:
    torch.save(build_model("lenet5bn").state_dict(), files / "bare.pth")
    both = opened((files / "bare.pth", files / "slim.hdf5"), None)
    assert [file.arch for file in both] == ["lenet5bn"] * 2
    with pytest.raises(InputError, match=r"bare\.pth nor a run\.json beside it says"):
        opened((files / "bare.pth", files / "bare.pth"), None)
    with pytest.raises(InputError, match=r"slim\.hdf5 holds a lenet5bn, not a src8"):
        opened((files / "bare.pth", files / "slim.hdf5"), "src8")
