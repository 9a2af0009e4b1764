"""A network in each runtime gives what the model gives."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch import nn

from rr import InputError, NetworkCard
from rr.export import exported_program
from rr.export.runtimes import write_program
from rr.latency import engines
from rr.latency.engines import Ready, engine, why_not
from rr.latency.settings import Timing

IMAGES = torch.linspace(-1, 1, 2 * 3 * 6 * 6).reshape(2, 3, 6, 6)


def ready(onnx: Path | None = None) -> Ready:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    if onnx is not None:
        write_program(onnx, "onnx", exported_program(model, IMAGES)[0], NetworkCard())
    return Ready("net", model, onnx)


@pytest.mark.slow
def test_other_runtimes_give_what_the_model_gives(tmp_path: Path) -> None:
    network = ready(tmp_path / "a.onnx")
    expected = network.model(IMAGES)
    for runtime in ("onnxruntime", "openvino"):
        (found,) = (
            torch.from_numpy(one).clone()
            for one in _values(engine(network, Timing(runtime, "float32", 1, 2), IMAGES)())
        )
        torch.testing.assert_close(found, expected)


def _values(outputs: object) -> list:
    return list(outputs.values()) if hasattr(outputs, "values") else list(outputs)


@pytest.mark.parametrize("runtime", ["eager", "compiled"])
def test_torch_gives_what_the_model_gives_in_both_precisions(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.torch, "compile", partial(torch.compile, backend="eager"))  # no compiler is waited for
    network = ready()
    for precision, close in (("float32", {}), ("bfloat16", {"rtol": 0.05, "atol": 0.02})):
        found = engine(network, Timing(runtime, precision, 1, 2), IMAGES)()
        assert found.dtype == getattr(torch, precision)
        torch.testing.assert_close(found.float(), network.model(IMAGES), check_dtype=False, **close)
    assert network.model[0].weight.dtype == torch.float32


def test_what_cannot_be_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> NoReturn:
        raise RuntimeError("no C++ compiler\nmore")

    monkeypatch.setattr(engines.torch, "compile", lambda *_, **__: fails)
    with pytest.raises(InputError, match=r"can't compile net \(.*no C\+\+ compiler\): choose another runtime"):
        engine(ready(), Timing("compiled", "float32", 1, 2), IMAGES)
    assert "no convolutions in bfloat16" in why_not(Timing("onnxruntime", "bfloat16", 1, 1))
    assert why_not(Timing("onnxruntime", "float32", 1, 1)) is None
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(InputError, match=r"resrep\[export\]"):
        why_not(Timing("openvino", "bfloat16", 1, 1))
