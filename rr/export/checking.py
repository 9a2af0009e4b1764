"""Whether an exported network computes what the model computes: against float64, on the outputs' own scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rr.copies import copy_of
from rr.export.runtimes import Runner

# Two runs in float32 that add up in another order are each one such error from float64, of other signs and sizes:
# between the largest ones of few outputs there lies a small factor. Wrong numbers are thousands of errors away.
TIMES_OWN_ERROR = 8


@dataclass(frozen=True)
class OutputCheck:
    """One output at one shape of the images.

    Attributes:
        images: their shape.
        output: its place among the outputs.
        difference: largest |exported - model in float64|, over the largest output in float64.
        own_error: the same of the model in float32.
    """

    images: tuple[int, ...]
    output: int
    difference: float
    own_error: float


@dataclass(frozen=True)
class ExportCheck:
    """All outputs at all shapes.

    Attributes:
        outputs: each.
    """

    outputs: tuple[OutputCheck, ...]

    @property
    def bound(self) -> float:
        """The largest difference that float32 explains: `TIMES_OWN_ERROR` of the model's own largest one."""
        smallest = torch.finfo(torch.float32).eps / 2
        return TIMES_OWN_ERROR * max(smallest, *(output.own_error for output in self.outputs))

    @property
    def is_equal(self) -> bool:
        """Whether all differences are within the bound; one that is no number isn't."""
        return all(output.difference <= self.bound for output in self.outputs)

    def as_dict(self) -> dict[str, object]:
        """Plain values, for a file."""
        found = [{**asdict(output), "images": list(output.images)} for output in self.outputs]
        return {"outputs": found, "bound": self.bound, "is_equal": self.is_equal}

    def __str__(self) -> str:
        lines = [
            f"images {'x'.join(map(str, one.images))}, output {one.output}: {one.difference:.1e} from the model in "
            f"float64 (the model itself in float32: {one.own_error:.1e})"
            for one in self.outputs
        ]
        verdict = "equal" if self.is_equal else "NOT equal"
        return "\n".join(
            [*lines, f"{verdict}: at most {self.bound:.1e}, {TIMES_OWN_ERROR} of these errors, is float32"]
        )


def check_export(model: nn.Module, run: Runner, channels: int, size: int, any_size: bool) -> ExportCheck:
    """Compare an exported network with its model, at two batches and, where it takes them, two sizes.

    Args:
        model: in eval mode, on the CPU in float32.
        run: the exported one.
        channels, size: of the images.
        any_size: whether it takes other heights and widths.
    """
    double = copy_of(model).double()
    found: list[OutputCheck] = []
    for images in example_images(channels, size, any_size):
        with torch.no_grad():
            exact, own = tree_leaves(double(images.double())), tree_leaves(model(images))
        for place, (a, b, c) in enumerate(zip(exact, own, run(images), strict=True)):
            found.append(OutputCheck(tuple(images.shape), place, _relative(a, c), _relative(a, b)))
    return ExportCheck(tuple(found))


def example_images(channels: int, size: int, any_size: bool) -> Iterator[Tensor]:
    """The images that `check_export` asks of, the same ones each time: [1 or 3, channels, height, width]."""
    generator = torch.Generator().manual_seed(0)
    for height, width in [(size, size), *([(size + size // 2 + 1, size + 2)] if any_size else [])]:
        for batch in (1, 3):
            yield torch.randn(batch, channels, height, width, generator=generator)


def _relative(exact: Tensor, other: Tensor) -> float:
    if exact.shape != other.shape:
        return float("inf")
    return ((other.double() - exact).abs().max() / exact.abs().max().clamp_min(1e-30)).item()
