"""A traced operation run on constants, in float64, with NaN for what depends on the network's input."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, fx

from rr.graph.operations import (
    ELEMENTWISE,
    OperationKind,
    chosen_along,
    is_dropout,
    is_in_place,
    kind_of,
    operation,
)
from rr.graph.trace import argument, has_sizes, named_arguments, shape_of

UNKNOWN = float("nan")
# These turn a constant into another one for each size of images.
_BY_ORDER = {
    *("sort", "argsort", "msort", "topk", "cummax", "cummin", "argmax", "argmin", "any", "all", "max", "min"),
    *("median", "nanmedian", "kthvalue", "mode", "quantile"),
}
_OF_SIZE = frozenset(["sum", "softmax", "log_softmax"])


def execute(node: fx.Node, value_of: Callable[[fx.Node], object]) -> object:
    """What the operation makes of the values of its arguments."""
    args, kwargs = fx.map_arg((node.args, node.kwargs), value_of)
    name = operation(node)
    if name.startswith("avg_pool") and any(np.atleast_1d(argument(node, 3, "padding", 0))):
        args = (torch.where(args[0] == 0, args[0], UNKNOWN), *args[1:])  # padding is averaged in: as for a layer
    if name in ("view", "_unsafe_view"):
        return args[0].reshape(args[1])
    kind = kind_of(node)
    if kind is OperationKind.RECURRENT:  # its state is none of the prunable channels
        return unknown(node)
    if kind is OperationKind.PRODUCT:  # 0 where all that is added up has a factor of 0
        is_one = fx.map_arg((node.args, node.kwargs), lambda source: (value_of(source) != 0).double())
        return _zero_or_unknown(node.target(*is_one[0], **is_one[1]) == 0)
    if kind is OperationKind.CAST or is_dropout(node):
        return args[0] if _is_real(node) else args[0].trunc()  # stays in float64, and whole
    if kind is OperationKind.CHOICE:  # the places may be others with the next weights
        return _wherever_taken(node, args[0])
    if kind is OperationKind.SAMPLING:  # whatever the places are, of nothing but zeros there is nothing else to take
        zeros = (args[0] == 0).flatten(2).all(2)  # [N, C]
        return _zero_or_unknown(zeros)[(..., *[None] * (len(shape_of(node)) - 2))].expand(shape_of(node))
    if kind is OperationKind.NEW and getattr(kwargs.get("dtype"), "is_floating_point", False):
        kwargs = {**kwargs, "dtype": torch.float64}
    if is_in_place(node):
        args = (args[0].clone(), *args[1:])
    result = _where_known(node, args, kwargs) if kind in ELEMENTWISE else node.target(*args, **kwargs)
    if kind is OperationKind.NEW:
        result = result.double()
    if name in _BY_ORDER:
        result = _where_all_known(node, args[0], result)
    if name in _OF_SIZE:
        result = torch.where(result == 0, result, UNKNOWN)
    if name == "mul":  # whatever the other factor is: a gate that varies lets nothing of a dead channel through
        zero = torch.zeros((), dtype=torch.float64)
        result = torch.where((torch.as_tensor(args[0]) == 0) | (torch.as_tensor(args[1]) == 0), zero, result)
    if name in ("div", "divide", "true_divide"):  # and a channel of zeros stays one, whatever it is divided by
        zero = torch.zeros((), dtype=torch.float64)
        result = torch.where((torch.as_tensor(args[0]) == 0) & torch.as_tensor(args[1]).isnan(), zero, result)
    return result


def _where_all_known(node: fx.Node, x: Tensor, result: object) -> object:
    """What an order among elements comes to, unknown wherever one of them is: torch puts NaN last, or calls it true."""
    dims = named_arguments(node).get("dim", None if kind_of(node) is OperationKind.REDUCTION else -1)
    dims = list(range(x.dim())) if dims is None else [dims] if isinstance(dims, int) else list(dims)
    unsure = x.isnan()
    for dim in dims:
        unsure = unsure.any(dim, keepdim=True)

    def known(part: Tensor) -> Tensor:
        fitted = unsure if part.dim() == x.dim() else unsure.squeeze([dim % x.dim() for dim in dims])
        return torch.where(fitted, UNKNOWN, part.double())

    return [known(part) for part in result] if isinstance(result, (tuple, list)) else known(result)


def _wherever_taken(node: fx.Node, x: Tensor) -> Tensor:
    """What is taken along a dimension where all there is the same, unknown elsewhere."""
    dim, index = chosen_along(node)
    if index is None:
        return unknown(node)
    first = x.narrow(dim, 0, 1)
    return torch.where((x == first).all(dim, keepdim=True), first, UNKNOWN).expand(shape_of(node))


def _zero_or_unknown(is_zero: Tensor) -> Tensor:
    return torch.where(is_zero, torch.zeros((), dtype=torch.float64), UNKNOWN)


def _where_known(node: fx.Node, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Tensor:
    """An elementwise operation's result, unknown wherever one of its inputs is, though `x > 0` hides that."""
    places = [value for value in args if isinstance(value, (Tensor, float))]
    is_any_unknown = torch.zeros((), dtype=torch.bool)
    for value in places:
        is_any_unknown = is_any_unknown | torch.as_tensor(value).isnan()
    as_exported = [
        value.nan_to_num(0.0).bool() if isinstance(value, Tensor) and _is_bool(source) else value
        for value, source in zip(args, node.args, strict=True)
    ]
    result = node.target(*as_exported, **kwargs).double()
    return torch.where(is_any_unknown, UNKNOWN, result)


def _is_real(node: fx.Node) -> bool:
    return node.meta["val"].dtype.is_floating_point


def _is_bool(source: object) -> bool:
    """Whether an argument is a tensor of truth values, which are numbers here, as some are unknown."""
    return isinstance(source, fx.Node) and getattr(source.meta.get("val"), "dtype", None) is torch.bool


def unknown(node: fx.Node) -> object:
    """What an operation's output is where nothing is known of it."""
    value = node.meta["val"]
    if not isinstance(value, (Tensor, list, tuple)):
        return UNKNOWN
    if not has_sizes(node):
        return torch.full((), UNKNOWN, dtype=torch.float64)
    if isinstance(value, (list, tuple)):
        return [torch.full(part.shape, UNKNOWN, dtype=torch.float64) for part in value]
    return torch.full((), UNKNOWN, dtype=torch.float64).expand(shape_of(node))


def is_unknown(value: object) -> bool:
    """Whether any of the value depends on the network's input."""
    return bool(torch.as_tensor(value).isnan().any())
