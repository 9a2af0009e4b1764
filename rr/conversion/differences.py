"""How far the outputs of two networks are apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_EPS = torch.finfo(torch.float32).eps
_FEW = 16  # errors, of which a quartile says little


def difference_of(reference: Sequence[Tensor], others: Sequence[Tensor], *, rounded: bool = False) -> float:
    """The largest |a - b| over the largest |a| that isn't the same in both, output by output.

    Args:
        reference: a, tensor by tensor.
        others: b.
        rounded: whether b is rounded, or not meant to be quite the same; integers (the index of the largest output,
            say) may then differ, and don't count.

    Returns:
        That difference; infinite where integers, booleans or infinities aren't equal, NaN where there is one.
    """

    def relative(_: int, a: Tensor, between: Tensor) -> Tensor:
        gap = between.max()
        changed = a.abs()[(between != 0) & a.isfinite()]
        return gap / changed.max() if gap.isfinite() and len(changed) and changed.max() > 0 else gap

    return _largest(reference, others, relative, rounded=rounded)


def difference_on_own_scale(
    reference: Sequence[Tensor], others: Sequence[Tensor], floors: Sequence[Tensor], *, rounded: bool = False
) -> float:
    """The largest |a - b| over an element's own scale: |a|, or where that is less, its floor (`error_floors`).

    An element that is huge (a class that is masked with -1e9) hides nothing of the others, and one that is near zero
    only because larger numbers cancel isn't asked for more than they have.

    Args:
        reference, others, rounded: as in `difference_of`, which also has what is returned.
        floors: for each output, of a shape that it broadcasts with.
    """

    def on_own_scale(place: int, a: Tensor, between: Tensor) -> Tensor:
        scale = torch.maximum(a.abs().masked_fill(a.isinf(), 0.0), floors[place])
        return torch.where(between == 0, 0.0, between / scale).max()

    return _largest(reference, others, on_own_scale, rounded=rounded)


def error_floors(reference: Sequence[Tensor], in_float32: Sequence[Tensor]) -> list[Tensor]:
    """The size of the numbers that a network's outputs are made of, by the errors that float32 makes with them.

    Args:
        reference: outputs in float64.
        in_float32: those of the same network in float32.

    Returns:
        For each output one number per channel (dimension 1): the lower quartile of the errors that aren't zero, over
        float32's epsilon. Of the whole output where a channel has few of them, or there are no channels.
    """
    return [_floor_of(a, b.to(a.dtype)) if _is_real(a) else a.new_zeros(()) for a, b in _pairs(reference, in_float32)]


def floors_for(outputs: Sequence[Tensor], floors: Sequence[Tensor]) -> list[Tensor]:
    """Floors of the same network's outputs at another size: by channel, or one for all where these aren't the same."""
    if len(outputs) != len(floors):
        return [torch.zeros((), dtype=torch.float64) for _ in outputs]
    fits = [
        floor.dim() == 0 or (a.dim() == floor.dim() and a.shape[1] == floor.shape[1])
        for a, floor in zip(outputs, floors, strict=True)
    ]
    return [
        floor if fit else _lower_quartile(floor.flatten()[None])[0] for floor, fit in zip(floors, fits, strict=True)
    ]


def _floor_of(a: Tensor, b: Tensor) -> Tensor:
    if a.shape != b.shape or not a.numel():  # as many detections as there are, say
        return a.new_zeros((), dtype=torch.float64)
    errors = (a - b).abs().double()
    errors = torch.where((errors > 0) & errors.isfinite(), errors, math.nan)
    channels = errors.transpose(0, 1).flatten(1) if a.dim() > 1 else errors.flatten()[None]  # [C, n]
    of_all = _lower_quartile(channels.flatten()[None])  # [1]
    enough = (~channels.isnan()).sum(1) >= _FEW
    floors = torch.where(enough, _lower_quartile(channels), of_all).nan_to_num(0.0) / _EPS
    return floors.view(1, -1, *[1] * (a.dim() - 2)) if a.dim() > 1 else floors[0]


def _lower_quartile(values: Tensor) -> Tensor:
    """[C] of [C, n], without NaN; `nanquantile` takes no more than 16 million values."""
    return values[:, :: max(values.numel() // 2**23, 1)].nanquantile(0.25, dim=1)


def _largest(
    reference: Sequence[Tensor],
    others: Sequence[Tensor],
    measure: Callable[[int, Tensor, Tensor], Tensor],
    *,
    rounded: bool,
) -> float:
    """The largest of what is measured of each output, given its place, a and |a - b|."""
    largest = 0.0
    for place, (a, b) in enumerate(_pairs(reference, others)):
        if not _is_real(a):
            if not rounded and not torch.equal(a, b):
                return math.inf
        elif a.shape != b.shape:
            return math.inf
        elif a.numel():
            between = (a - b.to(a.dtype)).abs()
            between = between.masked_fill(a.isinf() & (a == b), 0.0)  # inf - inf is NaN
            if between.isnan().any():
                return math.nan
            largest = max(largest, float(measure(place, a, between)))
    return largest


def _pairs(reference: Sequence[Tensor], others: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(reference, others, strict=True))


def _is_real(a: Tensor) -> bool:
    """Whether the numbers are compared by size, not only for being equal."""
    return a.is_floating_point() or a.is_complex()
