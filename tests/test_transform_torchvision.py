"""The script end to end: a torchvision state dict in, our HDF5 out, and one line for what can't be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from base_model import build_model
from rr.weights import load_strict, read_hdf5
from tests import forked, scripts
from tests.scripts import ROOT, Done

pytestmark = pytest.mark.slow


def transform(folder: Path, *arguments: str) -> Done:
    """Call the script in `folder`."""
    return scripts.call("transform_torchvision.py", *arguments, cwd=folder)


@pytest.fixture(scope="module")
def resnet50() -> nn.Module:
    """torchvision's ResNet-50 with 10 classes and batch norms that aren't the identity."""
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None, num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@torch.no_grad()
def test_same_logits_from_the_file(resnet50: nn.Module, tmp_path: Path) -> None:
    torch.save(resnet50.state_dict(), tmp_path / "weights.pth")
    done = transform(tmp_path, "--weights", "weights.pth")
    assert done.returncode == 0, done.stderr
    assert "torchvision_res50.hdf5" in done.stdout
    file = read_hdf5(tmp_path / "torchvision_res50.hdf5")
    assert file.kind == "base"
    assert file.attributes == {"arch": "sres50", "num_classes": 10, "source": "weights.pth"}
    model = build_model("sres50", num_classes=10).eval()
    load_strict(model, file.arrays, "the file")
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(x), resnet50(x))


def test_writes_nothing_if_the_logits_differ(resnet50: nn.Module, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in resnet50.state_dict().items()}
    state["layer2.0.conv1.weight"][0, 0, 0, 0] = torch.nan  # no logits equal NaN
    torch.save(state, tmp_path / "weights.pth")
    done = transform(tmp_path, "--weights", "weights.pth", "--output", "out.hdf5")
    assert (done.returncode, done.stdout) == (2, "")
    assert "logits differ by nan" in done.stderr
    assert not (tmp_path / "out.hdf5").exists()


def test_no_network_is_one_line(tmp_path: Path) -> None:
    without = {"https_proxy": "http://127.0.0.1:9", "TORCH_HOME": str(tmp_path), "no_proxy": ""}
    done = forked.run(ROOT / "transform_torchvision.py", cwd=tmp_path, env=os.environ | without)
    assert done.returncode == 2
    assert "--weights FILE" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.hdf5"))


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"model": {}}, "isn't a state dict"),
        ({"fc.weight": torch.zeros(10, 2048)}, "missing"),
        ({"features.0.weight": torch.zeros(3)}, "features.0.weight"),
    ],
)
def test_unfit_weights_are_one_line(payload: dict, message: str, tmp_path: Path) -> None:
    torch.save(payload, tmp_path / "weights.pth")
    done = transform(tmp_path, "--weights", "weights.pth")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
