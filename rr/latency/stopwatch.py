"""Two networks timed against each other in one runtime, again and again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rr.errors import InputError
from rr.graph import Inputs
from rr.latency.engines import Ready, engine, why_not
from rr.latency.onnx_files import OnnxFiles
from rr.latency.rounds import in_turn
from rr.latency.settings import Timing
from rr.runtime import compile_anew

BY_ONNX = ("onnxruntime", "openvino")

# Called with the full network, a narrow one and for how many seconds to measure: the narrow one's time over the full
# one's, round by round. Both are on the CPU, in eval mode, in float32, their BN folded.
TimeShares = Callable[[nn.Module, nn.Module, float], Sequence[float]]


class Stopwatch:
    """Times narrow networks against the full one, in turn, so that a machine's slow moments hit both.

    Args:
        timing: where.
        shape: of an image, (C, H, W).

    Raises:
        InputError: if this machine can't run networks like that.
    """

    def __init__(self, timing: Timing, shape: Sequence[int]) -> None:
        if reason := why_not(timing):
            raise InputError(f"no time can be measured ({timing}): {reason}")
        self.timing = timing
        self._images = torch.randn(timing.batch, *shape, generator=torch.Generator().manual_seed(0))
        self._files = OnnxFiles(self._images)
        self._held: dict[str, tuple[nn.Module, bytes | None]] = {}  # which network a place holds, and its ONNX

    def __call__(self, full: nn.Module, narrow: nn.Module, seconds: float) -> list[float]:
        """The narrow network's time over the full one's, a number for each round.

        Both are made ready anew each time: where a runtime puts a network in memory makes some percent of its time.

        Args:
            full, narrow: on the CPU, in eval mode, in float32, their BN folded.
            seconds: for all rounds.

        Raises:
            InputError: if a package is missing, or the runtime can't take a network.
        """
        if self.timing.runtime == "compiled":
            compile_anew("networks are timed, each compiled for itself")
        with tempfile.TemporaryDirectory() as folder, _threads(self.timing.threads):
            both = [self._ready(name, model, Path(folder)) for name, model in (("full", full), ("narrow", narrow))]
            times = in_turn([engine(network, self.timing, self._images) for network in both], seconds)
        return [after / before for before, after in zip(*times, strict=True)]

    def _ready(self, name: str, model: nn.Module, folder: Path) -> Ready:
        path = folder / f"{name}.onnx" if self.timing.runtime in BY_ONNX else None
        held, onnx = self._held.get(name, (None, None))
        if path is not None and held is model:
            path.write_bytes(onnx)
        elif path is not None:
            self._files.write(model, path)
            self._held[name] = model, path.read_bytes()
        return Ready(f"the {name} network", model, path)


def image_shape(example_inputs: Inputs) -> tuple[int, ...]:
    """The shape of an image, (C, H, W), of what a network is called with.

    Raises:
        InputError: if that isn't one tensor of images.
    """
    leaves = [leaf for leaf in tree_leaves(example_inputs) if leaf is not None]
    if len(leaves) != 1 or not isinstance(leaves[0], Tensor) or leaves[0].dim() != 4:
        raise InputError(
            "time is measured of networks that take one tensor of images, [N, C, H, W]: give a function of your own "
            "as timing, or a target of MACs"
        )
    return tuple(leaves[0].shape[1:])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Within the context torch has so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
