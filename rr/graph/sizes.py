"""Example inputs at other sizes: what holds for one size of images, or one batch, need not hold for another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from rr.graph.tensors import ExampleInputs

# Larger and odd, larger and even (for networks that halve their images), the next one.
# The first ones are no multiples of what the examples' size is one of (a window of 7 in images of 14, say).
_LARGER: tuple[Callable[[int], int], ...] = (lambda n: (n + n // 2 + 2) | 1, lambda n: 2 * n, lambda n: n + 1)
_SMALLER: tuple[Callable[[int], int], ...] = (lambda n: (n // 2 + 1) | 1, lambda n: n // 2, lambda n: n - 1)


def other_sizes(inputs: ExampleInputs) -> Iterator[tuple[ExampleInputs, ...]]:
    """The example inputs with another batch, with each dimension larger, and with all of these smaller.

    The last one is larger together with the other pixels, and by more: a forward may do something only where height and
    width are both large, or the one is over the other. And with other numbers, where the forward is called with any.
    The tensors of the inputs change together, as far as they have the same size in that dimension: two images, an image
    and its mask. Integers and all other values are those of the examples, repeated. But for the batch itself, batches
    are of one example.

    Args:
        inputs: the example inputs.

    Yields:
        For each of these, candidates in the order in which they are to be tried: a network may not take the first.
    """
    batch = inputs.batch_size
    yield (with_sizes(inputs, {0: batch + 3}), *([] if batch == 1 else [_of_one(inputs)]))
    of_one = _of_one(inputs)
    shape = inputs.tensors[0].shape
    first = 2 if len(shape) > 3 else 1  # images have their channels there, sequences perhaps their length
    dims = [dim for dim in range(first, len(shape)) if shape[dim] > 1]
    pixels = [dim for dim in dims if dim > 1]
    for dim in dims:
        sizes = [{dim: change(shape[dim])} for change in _LARGER]
        if len(pixels) > 1 and dim == pixels[-1]:
            sizes = [*_together(shape, pixels), *sizes]
        yield tuple(with_sizes(of, size) for size in sizes for of in (of_one, inputs))
    for whole in (False, True):
        if numbers := _other_numbers(inputs, whole=whole):
            yield (numbers,)
    if pixels:
        sizes = [{dim: max(change(shape[dim]), 1) for dim in pixels} for change in _SMALLER]
        yield tuple(with_sizes(of, size) for size in sizes for of in (of_one, inputs))


def _together(shape: Sequence[int], pixels: Sequence[int]) -> list[dict[int, int]]:
    """All pixels larger, the last dimension by more than the others; then all in the same way."""
    alike = [{dim: change(shape[dim]) for dim in pixels} for change in _LARGER]
    return [{**alike[0], pixels[-1]: (2 * shape[pixels[-1]] + 2) | 1}, *alike]


def larger_at_once(inputs: ExampleInputs) -> Iterator[ExampleInputs]:
    """The example inputs with another batch and all pixels larger, to be tried in this order; then each of them."""
    shape = inputs.tensors[0].shape
    batch = 2 if shape[0] == 1 else 1
    for change in _LARGER:
        sizes = {dim: change(shape[dim]) for dim in range(2, len(shape))}
        for larger in (with_sizes(inputs, {0: batch, **sizes}), with_sizes(inputs, sizes)):
            yield _other_numbers(larger) or larger
    yield with_sizes(inputs, {0: batch})


def shape_in_words(inputs: ExampleInputs) -> str:
    """`2x3x32x32`, the shape of the first tensor; with the numbers that come with it, if any."""
    leaves = tree_leaves((inputs.args, dict(inputs.kwargs)))
    numbers = [str(leaf) for leaf in leaves if isinstance(leaf, (bool, int, float))]
    return " with ".join(["x".join(map(str, inputs.tensors[0].shape)), *numbers])


def _of_one(inputs: ExampleInputs) -> ExampleInputs:
    return with_sizes(inputs, {0: 1})


def _other_numbers(inputs: ExampleInputs, *, whole: bool = False) -> ExampleInputs | None:
    """With another number for each of floating point, or for each whole one and switch; None where there is none."""
    kinds = (bool, int) if whole else (float,)
    given = (inputs.args, dict(inputs.kwargs))

    def other(value: object) -> object:
        if isinstance(value, bool):
            return not value
        return value + 1 if whole else 1.5 * value + 0.25

    args, kwargs = tree_map_only(kinds, other, given)
    return ExampleInputs(args, kwargs) if any(isinstance(leaf, kinds) for leaf in tree_leaves(given)) else None


def with_sizes(inputs: ExampleInputs, sizes: dict[int, int]) -> ExampleInputs:
    """Inputs of these sizes (by dimension) wherever a tensor has the first tensor's size in that dimension."""
    first = inputs.tensors[0].shape

    def resized(item: Tensor) -> Tensor:
        for dim, size in sizes.items():
            if item.dim() > dim and item.shape[dim] == first[dim]:
                item = item.index_select(dim, torch.arange(size, device=item.device) % item.shape[dim])
        return item

    return inputs.mapped(resized)
