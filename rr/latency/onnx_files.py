"""One network at many widths as files of ONNX: exported once, from then on only the numbers in the file are others.

An export takes seconds to half a minute, and a network of other widths is the same graph with other weights. Whether it
is can't be known beforehand (a width may stand in the graph as a number, a bias may be new), so each file is run, and
where it doesn't compute what the network does, the network is exported after all.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rr.export.program import exported_program
from rr.export.runtimes import package, runner, write_program
from rr.weights import NetworkCard
from rr.whole_files import written_whole

CLOSE = 1e-3  # of the largest output: weights of another network are much further off
_WITH_GROUPS = ("Conv", "ConvTranspose")

logger = logging.getLogger(__name__)


class OnnxFiles:
    """Writes networks that are one network at different widths.

    Args:
        images: an example, float32, [N, C, H, W].
    """

    def __init__(self, images: Tensor) -> None:
        self._images = images
        self._first: Any = None

    def write(self, model: nn.Module, path: Path) -> None:
        """Write a network as ONNX for any batch.

        Args:
            model: in eval mode, on the CPU, in float32.
            path: the file.

        Raises:
            InputError: if a package is missing, or the network can't be exported.
        """
        if self._first is not None:
            with written_whole(path) as temporary:
                temporary.write_bytes(with_weights_of(model, self._first).SerializeToString())
            if self._is_right(model, path):
                return
            logger.debug("a network of these widths is another graph: it is exported anew")
        write_program(path, "onnx", exported_program(model, self._images)[0], NetworkCard())
        if self._first is None:
            self._first = package("onnx").load(str(path))

    def _is_right(self, model: nn.Module, path: Path) -> bool:
        images = self._images[:1]
        with torch.no_grad():
            expected = model(images)
        try:
            (found,) = runner(path, "onnx")(images)
        except Exception:  # of the runtime, for shapes that don't go together: it has no class for that
            return False
        return found.shape == expected.shape and bool((found - expected).abs().max() <= CLOSE * expected.abs().max())


def with_weights_of(model: nn.Module, onnx_model: Any) -> Any:
    """A copy of an ONNX model with another network's weights, by name, and what follows from their shapes."""
    onnx = package("onnx")
    made = onnx.ModelProto()
    made.CopyFrom(onnx_model)
    state = model.state_dict()
    for tensor in made.graph.initializer:
        if tensor.name in state:
            tensor.CopyFrom(onnx.numpy_helper.from_array(state[tensor.name].numpy(), tensor.name))
    for node in made.graph.node:
        if node.op_type in _WITH_GROUPS and node.input[1] in state:
            _set(node, "group", model.get_submodule(node.input[1].rpartition(".")[0]).groups)
    _flatten_any_width(made, onnx)
    _leave_widths_open(made)
    return made


def _flatten_any_width(made: Any, onnx: Any) -> None:
    """Let reshapes to [N, features], whose number of features is in the file, take any number of them."""
    shapes = {tensor.name: tensor for tensor in made.graph.initializer if list(tensor.dims) == [2]}
    for node in made.graph.node:
        if node.op_type == "Reshape" and node.input[1] in shapes:
            shape = shapes[node.input[1]]
            shape.CopyFrom(onnx.numpy_helper.from_array(np.array([0, -1]), shape.name))  # as it is, and all the rest
            _set(node, "allowzero", 0)


def _leave_widths_open(made: Any) -> None:
    """Clear the widths of what is within and of what comes out, which follow from the weights.

    Its symbolic sizes stay: without them ONNX Runtime doesn't know that a block's two branches have one size, and
    doesn't fuse their addition into a convolution, so the network would be slower than one that is exported anew.
    """
    for value in (*made.graph.value_info, *made.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.HasField("dim_value"):
                size.Clear()


def _set(node: Any, name: str, value: int) -> None:
    for attribute in node.attribute:
        if attribute.name == name:
            attribute.i = value
