"""Compiled steps beside others, without a compiler being waited for."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_parts import compiled
from benchmarks.gpu_parts.setting import Setting


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_compiled_steps_train_as_others_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    kinds = compiled.measure(Setting(tmp_path))["kinds"]
    assert kinds["compiled"]["agrees"], kinds
    assert kinds["compiled"]["steps"] == kinds["float32"]["steps"] == 8
