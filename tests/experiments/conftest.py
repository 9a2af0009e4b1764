"""A base network and a whole pruning run, that several test files look at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from base_model import build_model
from rr.weights import save_hdf5
from tests.experiments.runs import ARCH, PRUNE, pruned


@pytest.fixture(scope="session")
def base_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that nobody trained: what is tested here doesn't depend on how good it is."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("base") / "finish.hdf5"
    save_hdf5(path, build_model(ARCH, in_channels=1).state_dict(), {"arch": ARCH})
    return path


@pytest.fixture(scope="session")
def finished(base_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run: only to be read, since all tests share it."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    pruned(*PRUNE, "--base-weights", base_weights, "--output-dir", folder)
    return folder
