"""A network of ONNX in 8-bit whole numbers: after training, its ranges from images. Packages come with `[export]`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from rr.errors import InputError, first_line
from rr.export.onnx_checksum import with_checksum
from rr.export.runtimes import package
from rr.weights.checksums import CHECKSUM
from rr.whole_files import written_whole


def quantise_onnx(source: Path, path: Path, batches: Iterable[Tensor]) -> None:
    """Write a network's file of ONNX with weights and activations in int8, static, as QuantizeLinear pairs (QDQ).

    Weights have one scale for each output channel; an activation's is that of the range that it has on the images.
    What the file says beside the network (the card) is kept.

    Args:
        source: the network in float32, `.onnx`.
        path: the file to write, `.onnx`.
        batches: images as the network is called with, float32 [N, C, H, W].

    Raises:
        InputError: if a package is missing, there are no images, or onnxruntime can't quantise the network.
    """
    onnx = package("onnx")
    package("onnxruntime")
    quantization = package("onnxruntime.quantization")
    shape_inference = package("onnxruntime.quantization.shape_inference")
    held = onnx.load(str(source))
    reader = _Reader(held.graph.input[0].name, batches)
    with tempfile.TemporaryDirectory() as folder:
        prepared, made = Path(folder) / "prepared.onnx", Path(folder) / "made.onnx"
        try:
            # Folds and fuses first: what runs as one step must not be rounded in its middle.
            shape_inference.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantization.quantize_static(str(prepared), str(made), reader, per_channel=True)
        except InputError:  # of the images
            raise
        except Exception as error:  # onnxruntime raises nearly anything for what it can't quantise
            if not reader.asked:
                raise InputError("there are no images to find the ranges with: give some") from error
            raise InputError(f"onnxruntime can't quantise the network ({first_line(error)})") from error
        model = onnx.load(str(made))
    onnx.helper.set_model_props(
        model, {entry.key: entry.value for entry in held.metadata_props if entry.key != CHECKSUM}
    )
    with written_whole(path) as temporary:
        temporary.write_bytes(with_checksum(model.SerializeToString()))


class _Reader:
    """Batches as onnxruntime asks for them: one at a time, None at the end."""

    def __init__(self, name: str, batches: Iterable[Tensor]) -> None:
        self._name = name
        self._batches: Iterator[Tensor] = iter(batches)
        self.asked = 0  # batches that were given

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next inputs by name."""
        images = next(self._batches, None)
        if images is None:
            return None
        self.asked += 1
        return {self._name: images.numpy()}
