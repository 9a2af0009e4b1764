"""Files of a network in a process of its own: what is measured there, and what is no result."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from rr import NetworkCard
from rr.export import check_export, exported_program, save_program
from tests import scripts

SIZE = 8


@pytest.mark.long
@pytest.mark.slow
def test_a_file_is_compared_in_a_process_of_its_own(tmp_path: Path) -> None:
    formats = scripts.load("benchmarks/formats.py")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    program, any_size = exported_program(model, torch.zeros(2, 3, SIZE, SIZE))
    save_program(tmp_path / "net.pt2", program, NetworkCard())
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].bias += 1e-3
    found = formats.in_fresh_process("pt2", tmp_path, other, SIZE, any_size)
    expected = check_export(other, lambda x: [model(x).detach()], 3, SIZE, any_size)
    assert not found["is_equal"]
    assert len(found["outputs"]) == 4
    assert found["difference"] == pytest.approx(max(one.difference for one in expected.outputs), rel=1e-2)
    with pytest.raises(RuntimeError, match="onnx doesn't load and run"):
        formats.in_fresh_process("onnx", tmp_path, model, SIZE, any_size)
