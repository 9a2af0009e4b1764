"""A network in each runtime, ready to be called again and again with the same images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rr.copies import copy_of
from rr.errors import InputError, first_line
from rr.export.runtimes import package
from rr.latency.settings import Timing

Engine = Callable[[], object]


@dataclass(frozen=True)
class Ready:
    """A network that is to be timed.

    Attributes:
        name: its file, or what else it is called.
        model: on the CPU, in eval mode, its BN folded.
        onnx: the same in a file of ONNX; None where no runtime needs it.
    """

    name: str
    model: nn.Module
    onnx: Path | None


def why_not(timing: Timing) -> str | None:
    """Why a runtime can't run like this on this machine, or None."""
    if timing.precision == "float32":
        return None
    if timing.runtime == "onnxruntime":
        return "ONNX Runtime has no convolutions in bfloat16 on the CPU"
    if timing.runtime == "openvino":
        able = package("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return None if "BF16" in able else "this CPU has no bfloat16, and OpenVINO doesn't emulate it"
    return None


def engine(network: Ready, timing: Timing, images: Tensor) -> Engine:
    """The network as a call that runs it once; torch's number of threads must be the timing's.

    Args:
        network: which.
        timing: how.
        images: float32, [batch, C, H, W].

    Raises:
        InputError: if a package is missing, or torch can't compile the network.
    """
    makers = {"eager": _eager, "compiled": _compiled, "onnxruntime": _onnxruntime, "openvino": _openvino}
    return makers[timing.runtime](network, timing, images)


def _eager(network: Ready, timing: Timing, images: Tensor) -> Engine:
    dtype = getattr(torch, timing.precision)
    model, images = copy_of(network.model).to(dtype), images.to(dtype)
    return torch.inference_mode()(lambda: model(images))


def _compiled(network: Ready, timing: Timing, images: Tensor) -> Engine:
    dtype = getattr(torch, timing.precision)
    compiled, images = torch.compile(copy_of(network.model).to(dtype), dynamic=False), images.to(dtype)
    call = torch.inference_mode()(lambda: compiled(images))
    try:
        call()
    except Exception as error:  # of the compiler, or of torch's way to it: they have no common class
        raise InputError(f"torch can't compile {network.name} ({first_line(error)}): choose another runtime") from error
    return call


def _onnxruntime(network: Ready, timing: Timing, images: Tensor) -> Engine:
    runtime = package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = timing.threads
    options.inter_op_num_threads = 1
    # Its threads wait busily for the next call: they must not do so while the other network runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = runtime.InferenceSession(str(network.onnx), options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: images.numpy()}
    return lambda: session.run(None, inputs)


def _openvino(network: Ready, timing: Timing, images: Tensor) -> Engine:
    core = package("openvino").Core()
    model = core.read_model(str(network.onnx))
    model.reshape(list(images.shape))  # a free size is slower there
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": timing.threads,
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[timing.precision],
    }
    compiled = core.compile_model(model, "CPU", options)
    array = images.numpy()
    return lambda: compiled([array], share_inputs=True, share_outputs=True)
