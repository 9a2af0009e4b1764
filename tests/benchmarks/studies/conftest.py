"""Networks, data and folders that several tests of the studies start from."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from base_model import build_model
from benchmarks.studies import runs
from data import Data, load_data
from rr.weights import save_hdf5
from tests.benchmarks.studies.helpers import SMALL
from tests.forked import Forked
from tests.image_folders import write_random_images


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("digits", image_size=8)


@pytest.fixture
def network() -> nn.Module:
    """Trained-looking: BN statistics and scales that aren't the initial ones. float64, so that sums can be compared."""
    torch.manual_seed(1)
    model = build_model("src20", in_channels=1).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.uniform_(tensor, -0.3, 0.3)
    return model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of two classes, and a network for them to start from."""
    folder = tmp_path_factory.mktemp("short")
    write_random_images(folder / "images", {"train": 20, "test": 6}, ("cat", "dog"), (8, 8))
    torch.manual_seed(7)
    for seed in (0, 1):
        save_hdf5(folder / "bases" / f"s{seed}" / "finish.hdf5", build_model(SMALL, num_classes=2).state_dict(), {})
    return folder


@pytest.fixture
def forked_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of a study's runs have done their imports when they begin."""
    instead = SimpleNamespace(Popen=Forked, STDOUT=subprocess.STDOUT, DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr(runs, "subprocess", instead)
