"""Files of ONNX at other widths compute what the network does, whether they are exported anew or not, and as fast."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from rr.export import runtimes
from rr.latency import onnx_files
from rr.latency.onnx_files import OnnxFiles
from tests.old_torch import fails_on_old_torch

IMAGES = torch.linspace(-1, 1, 2 * 3 * 6 * 6).reshape(2, 3, 6, 6)


def network(width: int, *, bias: bool = True) -> nn.Module:
    """With a depthwise convolution, and the number of features that its classifier reads in its graph."""
    torch.manual_seed(width)
    layers = (nn.Conv2d(3, width, 1, bias=bias), nn.ReLU(), nn.Conv2d(width, width, 3, groups=width))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)).eval()


@fails_on_old_torch("an exported graph computes the shape that it flattens to, so every width is exported anew")
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


class Residual(nn.Module):
    """Two blocks; in the second one both branches have half of the images' size, whatever that is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.shortcut = nn.Conv2d(3, width, 1, stride=2)
        self.branch = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # [N, 3, H, W] -> [N, width]
        x = (self.down(x) + self.shortcut(x)).relu()
        return (x + self.branch(x)).relu().mean((2, 3))


def fused_into(path: Path) -> Counter[str]:
    """The operations that ONNX Runtime makes of a file's, and how many of each."""
    options, made = onnxruntime.SessionOptions(), path.with_suffix(".fused.onnx")
    options.optimized_model_filepath, options.log_severity_level = str(made), 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(str(made)).graph.node)


@pytest.mark.slow
def test_a_runtime_fuses_what_it_does_in_a_network_exported_anew(tmp_path: Path) -> None:
    files = OnnxFiles(IMAGES)
    for width in (32, 16):  # the first is exported; both fill a runtime's vectors
        files.write(Residual(width).eval(), tmp_path / f"{width}.onnx")
    assert fused_into(tmp_path / "16.onnx") == fused_into(tmp_path / "32.onnx")
