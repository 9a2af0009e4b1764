"""Exports by the command line: each format in its own runtime, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from base_model import build_model
from rr import NetworkCard, save_pruned
from rr.weights import save_hdf5
from rr.weights.networks import note_widths
from tests import scripts
from tests.scripts import Done

CARD = NetworkCard(
    architecture="src20",
    keywords={"num_classes": 3, "in_channels": 1},
    classes=("cat", "dog", "fish"),
    mean=(0.5,),
    std=(0.25,),
    in_channels=1,
    image_size=16,
)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network's file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("pruned") / "slim.safetensors"
    model = build_model("src20", num_classes=3, in_channels=1, folded=True).eval()
    save_pruned(note_widths(model, [1]), path, CARD)
    return path


def export(*options: object) -> Done:
    return scripts.call("tools/export.py", *options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "suffix"), [("onnx", ".onnx"), pytest.param("openvino", ".xml", marks=pytest.mark.long), ("pt2", ".pt2")]
)
def test_each_format_is_equal_at_two_batches_and_sizes(form: str, suffix: str, pruned: Path, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    done = export(pruned, "--format", form, "--output", path)
    assert done.returncode == 0, done.stderr
    assert "any batch, any size of images" in done.stdout
    found = json.loads((tmp_path / f"net{suffix}.json").read_text())
    assert found["is_equal"]
    assert len({(one["images"][0], one["images"][2]) for one in found["outputs"]}) == 4
    assert "fish" in path.read_bytes().decode("latin-1")  # the card is in the file


@pytest.mark.slow
def test_another_network_in_the_file_is_exit_code_1(
    pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments import exporting

    monkeypatch.setattr(exporting, "runner", lambda *_: lambda x: [torch.ones(len(x), 3)])
    done = export(pruned, "--format", "pt2", "--output", tmp_path / "net.pt2")
    assert done.returncode == 1
    assert "NOT equal" in done.stdout


@pytest.mark.slow
def test_what_is_refused(pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--int8 needs --calibrate DIR" in export(pruned, "--format", "onnx", "--int8").stderr
    assert "no data folder" in export(pruned, "--format", "onnx", "--int8", "--calibrate", tmp_path / "none").stderr
    assert "must end in .onnx" in export(pruned, "--format", "onnx", "--output", tmp_path / "net.pt2").stderr
    training = {**build_model("lenet5bn").state_dict(), "conv1.compactor.pwc.weight": torch.eye(20)[:, :, None, None]}
    save_hdf5(tmp_path / "training.hdf5", training, {"arch": "lenet5bn"})
    assert "convert it first" in export(tmp_path / "training.hdf5", "--format", "pt2").stderr
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    assert 'pip install "resrep[export]"' in export(pruned, "--format", "onnx", "--output", tmp_path / "a.onnx").stderr
