"""What an optimiser keeps for folded parameters, mapped so that a step leads where it would have led before the fold.

To first order, K' moves by s A dK; gamma' by the share of K's mixed filter that d gamma adds along it; beta' by
Q d beta / n; and a row's norm by what moves the row along itself. Squared gradients are averaged over the outputs that
were mixed, by their parts. (Names as in `rr.narrowing.layer_fold`.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from rr.compactors import CHILD
from rr.graph.tensors import in_float64
from rr.narrowing.layer_fold import LayerFold, Modules, mixed
from rr.narrowing.tensors import SECOND_MOMENTS, OptimizerState, format_of, numbers_of


def carry_over(fold: LayerFold, modules: Modules, folded: Modules, state: OptimizerState) -> None:
    """Put the optimiser's numbers of what is folded through the same maps as the weights.

    Args:
        fold: the fold of one layer.
        modules: the model's modules as they were.
        folded: the modules as folded.
        state: the optimiser's state, changed in place.
    """
    mixing = fold.mixing(modules)
    parts = mixing.square() / mixing.square().sum(1, keepdim=True)
    _carry_filters(fold, modules, mixing, parts, state)
    if fold.layer.norm is not None:
        _carry_norm(fold, modules, mixing, parts, folded[fold.layer.norm].weight.detach(), state)
    _carry_rows(fold, modules, state)


def _carry_filters(fold: LayerFold, modules: Modules, mixing: Tensor, parts: Tensor, state: OptimizerState) -> None:
    module = modules[fold.layer.name]
    dimensions = {module.weight: fold.layer.output_dim} | ({} if module.bias is None else {module.bias: 0})
    for parameter, dim in dimensions.items():
        _map(state, parameter, partial(mixed, mixing, dim=dim), partial(mixed, parts, dim=dim))


def _carry_norm(
    fold: LayerFold, modules: Modules, mixing: Tensor, parts: Tensor, new_gamma: Tensor, state: OptimizerState
) -> None:
    norm = modules[fold.layer.norm]
    matrix, norms = fold.rows(modules)
    filters = fold.filters(modules)
    mixed_filters = mixing @ filters

    def of_gamma(value: Tensor) -> Tensor:
        inverse = torch.rsqrt(in_float64(norm.running_var) + norm.eps)
        change = (fold.scale[:, None] * matrix * (inverse * value)) @ filters
        return new_gamma * (change * mixed_filters).sum(1) / mixed_filters.square().sum(1).clamp_min(1e-300)

    _map(state, norm.weight, of_gamma, lambda value: parts @ value)
    _map(state, norm.bias, lambda value: matrix @ value / norms, lambda value: parts @ value)


def _carry_rows(fold: LayerFold, modules: Modules, state: OptimizerState) -> None:
    """Carry over the numbers of the compactor, which is diagonal afterwards."""
    matrix, norms = fold.rows(modules)
    directions = matrix / norms[:, None]

    def of_rows(value: Tensor) -> Tensor:  # [R, D, 1, 1] -> [R, R, 1, 1]
        return torch.diag((value.flatten(1) * directions).sum(1))[:, :, None, None]

    def of_squares(value: Tensor) -> Tensor:
        along = (value.flatten(1) * directions.square()).sum(1)
        return along[:, None].expand(-1, len(along))[:, :, None, None].clone()

    _map(state, getattr(modules[fold.host], CHILD).pwc.weight, of_rows, of_squares)


def _map(
    state: OptimizerState,
    parameter: nn.Parameter,
    first: Callable[[Tensor], Tensor],
    second: Callable[[Tensor], Tensor],
) -> None:
    """Map what an optimiser keeps for a parameter by `first`, but what it keeps of squares by `second`."""
    for key, value in numbers_of(state, parameter):
        mapped = (second if key in SECOND_MOMENTS else first)(in_float64(value))
        state[parameter][key] = mapped.contiguous().to(value, memory_format=format_of(value))
