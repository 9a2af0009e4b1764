"""Files of ONNX at other widths compute what the network does, whether they are exported anew or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rr.export import runtimes
from rr.latency import onnx_files
from rr.latency.onnx_files import OnnxFiles

IMAGES = torch.linspace(-1, 1, 2 * 3 * 6 * 6).reshape(2, 3, 6, 6)


def network(width: int, *, bias: bool = True) -> nn.Module:
    """With a depthwise convolution, and the number of features that its classifier reads in its graph."""
    torch.manual_seed(width)
    layers = (nn.Conv2d(3, width, 1, bias=bias), nn.ReLU(), nn.Conv2d(width, width, 3, groups=width))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)).eval()


@pytest.mark.slow
def test_only_another_graph_is_exported_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported: list[str] = []
    write = onnx_files.write_program

    def noted(path: Path, *arguments: object) -> None:
        exported.append(path.stem)
        if len(exported) == 1:  # an export takes seconds
            write(path, *arguments)

    monkeypatch.setattr(onnx_files, "write_program", noted)
    files = OnnxFiles(IMAGES)
    for name, model in {"full": network(8), "narrow": network(5)}.items():
        files.write(model, tmp_path / f"{name}.onnx")
        (found,) = runtimes.runner(tmp_path / f"{name}.onnx", "onnx")(IMAGES)
        torch.testing.assert_close(found, model(IMAGES), rtol=1e-4, atol=1e-5)
    assert exported == ["full"]
    files.write(network(6, bias=False), tmp_path / "other graph.onnx")
    assert exported == ["full", "other graph"]
