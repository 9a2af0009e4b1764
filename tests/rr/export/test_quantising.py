"""Networks in int8: near the network, its card kept, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from rr import InputError, NetworkCard
from rr.export import exported_program
from rr.export.quantising import quantise_onnx
from rr.export.runtimes import package, runner, write_program


@pytest.mark.slow
def test_int8_is_near_the_network_on_the_images_that_it_was_shown(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5))
    images = torch.randn(64, 3, 8, 8)
    program, _ = exported_program(model.eval(), images)
    write_program(tmp_path / "a.onnx", "onnx", program, NetworkCard(classes=("cat",)))
    quantise_onnx(tmp_path / "a.onnx", tmp_path / "new" / "b.onnx", images.split(16))
    expected = model(images).detach()
    (found,) = runner(tmp_path / "new" / "b.onnx", "onnx")(images)
    error = ((found - expected).norm() / expected.norm()).item()
    assert 1e-4 < error < 0.1
    made = package("onnx").load(str(tmp_path / "new" / "b.onnx"))
    kinds = {one.data_type for one in made.graph.initializer if len(one.dims) > 1}
    assert kinds == {package("onnx").TensorProto.INT8}  # weights; biases and scales have one dimension
    assert "cat" in {entry.key: entry.value for entry in made.metadata_props}["resrep"]
    with pytest.raises(InputError, match="there are no images"):
        quantise_onnx(tmp_path / "a.onnx", tmp_path / "c.onnx", [])
    assert not (tmp_path / "c.onnx").exists()

    def broken() -> Iterator[torch.Tensor]:
        yield images[:16]
        raise InputError("broken image 'a.png'")

    with pytest.raises(InputError, match=r"^broken image"):
        quantise_onnx(tmp_path / "a.onnx", tmp_path / "c.onnx", broken())
    assert not (tmp_path / "c.onnx").exists()
