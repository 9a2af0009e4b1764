"""Programs as files of ONNX, OpenVINO and torch, and how each runtime runs its own. Packages come with `[export]`."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from rr.errors import InputError, first_line
from rr.export.onnx_checksum import with_checksum
from rr.export.program import CARD_FILE, save_program
from rr.weights.card import CARD_KEY, NetworkCard
from rr.whole_files import written_whole

SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "openvino": ".xml"}
_COMMAND = '`pip install "resrep[export]"`'

Runner = Callable[[Tensor], list[Tensor]]  # images to outputs, on the CPU in float32


def write_program(path: Path, form: str, program: ExportedProgram, card: NetworkCard) -> None:
    """Write a program in one of the formats, with the card in it.

    Args:
        path: the file, which ends as `SUFFIXES` says; OpenVINO writes a `.bin` beside it.
        form: a key of `SUFFIXES`.
        program: in float32, as `exported_program` returns it.
        card: what the file says of the network.

    Raises:
        InputError: if a package is missing, or can't express the network.
    """
    {"onnx": _write_onnx, "pt2": save_program, "openvino": _write_openvino}[form](path, program, card)


def runner(path: Path, form: str) -> Runner:
    """The network in a file, run by the format's own runtime on the CPU."""
    return {"onnx": _onnx_runner, "pt2": _pt2_runner, "openvino": _openvino_runner}[form](path)


def _onnx_model(program: ExportedProgram, card: NetworkCard) -> Any:
    onnx = package("onnx")
    package("onnxscript")  # torch.onnx needs it
    logs = logging.getLogger("torch.onnx")
    level = logs.level
    logs.setLevel(logging.ERROR)
    try:
        made = torch.onnx.export(program, dynamo=True, input_names=["images"], verbose=False).model_proto
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(f"torch can't write the network as ONNX ({first_line(error)}): take --format pt2") from error
    finally:
        logs.setLevel(level)
    onnx.helper.set_model_props(made, {CARD_KEY: card.to_json()})
    return made


def _write_onnx(path: Path, program: ExportedProgram, card: NetworkCard) -> None:
    model = _onnx_model(program, card)
    with written_whole(path) as temporary:
        temporary.write_bytes(with_checksum(model.SerializeToString()))


def _write_openvino(path: Path, program: ExportedProgram, card: NetworkCard) -> None:
    openvino = package("openvino")
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "made.onnx", Path(folder) / "made.xml"
        source.write_bytes(_onnx_model(program, card).SerializeToString())  # OpenVINO reads ONNX from a file
        model = openvino.Core().read_model(str(source))
        model.set_rt_info(card.to_json(), [CARD_KEY])
        openvino.save_model(model, str(made), compress_to_fp16=False)
        # The .xml comes last: beside weights of another network it must not lie, not even after a kill.
        path.unlink(missing_ok=True)
        for suffix in (".bin", ".xml"):
            with written_whole(path.with_suffix(suffix)) as temporary:
                shutil.copyfile(made.with_suffix(suffix), temporary)


def _onnx_runner(path: Path) -> Runner:
    runtime = package("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    return lambda x: [torch.from_numpy(y) for y in session.run(None, {images.name: x.numpy()})]


def _openvino_runner(path: Path) -> Runner:
    # On a CPU that has bfloat16, OpenVINO takes it unless told.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = package("openvino").Core().compile_model(str(path), "CPU", options)
    return lambda x: [torch.from_numpy(y.copy()) for y in compiled([x.numpy()]).values()]


def _pt2_runner(path: Path) -> Runner:
    model = torch.export.load(str(path), extra_files={CARD_FILE: ""}).module()

    def run(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return tree_leaves(model(images))

    return run


def package(name: str) -> Any:
    """A package of `[export]`; InputError with the command that brings it where it is missing."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # a fault inside the package
            raise
        raise InputError(f"this needs the package {name}: {_COMMAND}") from None
