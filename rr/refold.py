"""Compactors folded into their convolutions in mid-run: the convolutions' dead outputs go as well (`narrow='full'`).

Taking out rows (rr.narrow) leaves a convolution its full width: its compactor's columns read all of it. Folding makes
conv-BN-compactor a narrow convolution, a fresh BN and a fresh compactor that together are, in eval mode, what they
were. With A = Q diag(gamma / sigma), z what the convolution gives, n the norms of the compactor's rows and s a scale:

    K' = s A K    mean' = s A mean    var' = s^2 Var(A z)    gamma' = sqrt(var' + eps) / (s n)    beta' = Q beta / n

and the compactor is diag(n), so that neither the rows' scores nor their penalty jump. Means are linear, so the running
mean is carried exactly; Var(A z), the variance of the compactor's outputs, depends on how channels vary together, so it
is measured in training steps before. s keeps the length of K's filters, and with it their learning rate: behind a BN
that is the rate over the squared length. In training mode the BN then normalises the mixed channels in place of those
that were mixed; only there the function changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rr.compactors import CHILD, WEIGHT_SUFFIX, Compactor, find_compactors
from rr.flow import PRODUCERS
from rr.graph import ChannelGraph, Layer, Site
from rr.narrow import format_of, keep_positions, numbers_of, output_dimensions, put_tensor
from rr.proof import (
    FLOAT64_TOLERANCE,
    ConversionError,
    difference_of,
    exact_copy,
    in_float64,
    inputs_and_outputs,
    outputs_of,
)
from rr.trace import Inputs
from rr.weights import count_channels

_ZERO = 1e-12  # a row with a smaller norm can have no direction: it comes out as exactly zero
# What optimisers of torch keep of squared gradients: positive, so that it is averaged and not mixed with signs.
_SECOND_MOMENTS = frozenset(["exp_avg_sq", "max_exp_avg_sq", "square_avg", "acc_delta", "sum", "variance"])


class VarianceMeter:
    """The mean, over the training passes since it was made, of the variance of each of a compactor's outputs.

    units: [D], the unit of each output; total: [D] of float32, the sum over `passes`
    """

    def __init__(self, compactor: Compactor, units: np.ndarray, state: Mapping[str, Any] | None = None) -> None:
        self.units = units
        self.passes = 0 if state is None else int(state["passes"])
        rows = compactor.pwc.weight
        self.total = torch.zeros(len(rows), device=rows.device) if state is None else state["total"].to(rows.device)
        self._handle = compactor.register_forward_hook(self._look)

    def mean_of(self, units: np.ndarray) -> Tensor:
        """[R] of float32, for those of the meter's units."""
        kept = torch.from_numpy(np.flatnonzero(np.isin(self.units, units)))
        return self.total[kept.to(self.total.device)] / self.passes

    def state_dict(self) -> dict[str, Any]:
        """For a run that is killed between measuring and folding."""
        return {"passes": self.passes, "total": self.total.cpu()}

    def remove(self) -> None:
        """Measure no more."""
        self._handle.remove()

    @torch.no_grad()
    def _look(self, compactor: Compactor, _: object, output: Tensor) -> None:
        if compactor.training:
            others = [dim for dim in range(output.dim()) if dim != compactor.channel_dim % output.dim()]
            self.total += output.detach().float().var(others, correction=0)
            self.passes += 1


@dataclass(frozen=True)
class _Fold:
    """How one layer is folded, the same for a model and for averages of its weights.

    columns: [R], the place of each row's own channel among the convolution's outputs
    norms, scale: [R], the compactor's row norms n (0 for a row that is zero) and s; variance: [R], of its outputs
    """

    layer: Layer
    host: str
    columns: Tensor
    norms: Tensor
    scale: Tensor
    variance: Tensor


def refoldable(graph: ChannelGraph, model: nn.Module) -> list[str]:
    """Layers whose (dense) compactor can be folded into them in mid-run."""
    compactors, modules = find_compactors(model), dict(model.named_modules())
    return [
        name
        for name, site in graph.sites.items()
        if site.host in compactors
        and graph.layers[name].kind in PRODUCERS
        and site.groups == 1
        and (graph.layers[name].norm is None or _has_place(modules[graph.layers[name].norm]))
    ]


def _has_place(norm: nn.Module) -> bool:
    """Whether a BN has the numbers that a fold changes."""
    return norm.weight is not None and norm.bias is not None and norm.running_var is not None


def outputs_of_layer(graph: ChannelGraph, model: nn.Module, name: str) -> tuple[int, int]:
    """How many of a layer's outputs are alive (its compactor's rows), and how many it has (the columns)."""
    matrix = find_compactors(model)[graph.sites[name].host].matrix
    return matrix.shape[0], matrix.shape[1]


def refold(
    models: Sequence[nn.Module],
    graph: ChannelGraph,
    variances: Mapping[str, Tensor],
    example_inputs: Inputs,
    optimizers: Sequence[torch.optim.Optimizer] = (),
) -> None:
    """Fold the compactors of some layers into them, in place, in a model and in copies of it (averages of its weights).

    variances: layer -> [R], the variance of its compactor's outputs, by the rows that it has
    Parameters stay the same objects. The optimisers' numbers go through the same linear map as their parameters, so
    that the next steps go on in the direction of the last ones.

    Raises ConversionError, with the models as they were, where a model's outputs in eval mode would change (float64).
    """
    model = models[0]
    folds = [_plan(graph, model, name, variance) for name, variance in variances.items()]
    exact_models = [_proven(each, example_inputs, partial(_fold_all, folds=folds)) for each in models]
    modules, folded = dict(model.named_modules()), dict(exact_models[0].named_modules())
    for optimizer in optimizers:
        for fold in folds:
            _carry_over(fold, modules, folded, optimizer.state)
    for fold in folds:
        positions = np.flatnonzero(~graph.removed[fold.layer.out_units])
        for name, dim in _dimensions(fold.layer, fold.host, modules):
            graph.remaining.setdefault(name, {})[dim] = positions, len(fold.layer.out_units)
    for each, exact in zip(models, exact_models, strict=True):
        values = dict(exact.named_parameters()) | dict(exact.named_buffers())
        for fold in folds:
            for name in dict.fromkeys(name for name, _ in _dimensions(fold.layer, fold.host, modules)):
                put_tensor(each, name, values[name].detach())
                count_channels(each.get_submodule(name.rpartition(".")[0]))


def can_retire(graph: ChannelGraph, model: nn.Module) -> bool:
    """Whether all compactors can go into what is before them: the dense ones by folding, diagonal ones as factors."""
    compactors, modules, foldable = find_compactors(model), dict(model.named_modules()), set(refoldable(graph, model))

    def goes(name: str, site: Site) -> bool:
        norm = name if graph.layers[name].kind == "norm" else graph.layers[name].norm
        diagonal = site.is_diagonal and (norm is None or _has_place(modules[norm]))
        return name in foldable or diagonal

    return all(goes(name, site) for name, site in graph.sites.items() if site.host in compactors)


def retire(
    models: Sequence[nn.Module],
    graph: ChannelGraph,
    example_inputs: Inputs,
    optimizers: Sequence[torch.optim.Optimizer] = (),
) -> None:
    """Put diagonal compactors into what is before them, in place; they stay as identities that no step runs or trains.

    What is left is in training, too, a plain narrow network. Raises ConversionError as `refold` does.
    """
    for model in models:
        _proven(model, example_inputs, partial(_absorb, graph=graph))
    states = [optimizer.state for optimizer in optimizers]
    for model in models:
        _absorb(model, graph, states if model is models[0] else ())
        put_out_of_use(model)


def put_out_of_use(model: nn.Module) -> None:
    """Compactors, identities by now (or when a state is loaded), that no step runs or trains."""
    for compactor in find_compactors(model).values():
        compactor.bypassed = True
        compactor.pwc.weight.requires_grad_(False)
        compactor.pwc.weight.grad = None


@torch.no_grad()
def _absorb(model: nn.Module, graph: ChannelGraph, states: Sequence[MutableMapping[nn.Parameter, dict]] = ()) -> None:
    """Multiply what diagonal compactors multiply by into the BN or the layer before them."""
    compactors, modules = find_compactors(model), dict(model.named_modules())
    for name, site in graph.sites.items():
        if site.host not in compactors:
            continue
        compactor, layer = compactors[site.host], graph.layers[name]
        factors = (compactor.matrix.diagonal() if site.groups == 1 else compactor.matrix[:, 0]).clone()
        target, dim = modules[layer.norm or name], 0 if layer.norm else layer.output_dim
        _scale(target.weight, factors.view(-1, *[1] * (target.weight.dim() - dim - 1)), states)
        if target.bias is not None:
            _scale(target.bias, factors, states)
        nn.init.dirac_(compactor.pwc.weight, compactor.pwc.groups)


def _scale(parameter: nn.Parameter, factors: Tensor, states: Sequence[MutableMapping[nn.Parameter, dict]]) -> None:
    parameter.mul_(factors)
    for state in states:
        for key, value in numbers_of(state, parameter):
            value.mul_(factors.square() if key in _SECOND_MOMENTS else factors)


def folded_outputs(graph: ChannelGraph) -> dict[str, list[int]]:
    """Layer -> the places that are left of its outputs, for each that has been folded (for `take_columns_out`)."""
    mixed = (graph.layers[name] for name, site in graph.sites.items() if not site.is_diagonal)
    producers = (layer for layer in mixed if layer.kind in PRODUCERS)
    left = {layer.name: (graph.outputs_left(layer), len(layer.out_units)) for layer in producers}
    return {name: places.tolist() for name, (places, full) in left.items() if len(places) < full}


def take_columns_out(model: nn.Module, graph: ChannelGraph, outputs: Mapping[str, Sequence[int]]) -> None:
    """Give layers the shapes that folding gave them (`folded_outputs`), so that the state of that time loads."""
    modules = dict(model.named_modules())
    for layer_name, places in outputs.items():
        layer = graph.layers[layer_name]
        for name, dim in _dimensions(layer, graph.sites[layer_name].host, modules):
            keep_positions([model], graph, name, dim, np.array(places, dtype=np.int64), len(layer.out_units))


def _dimensions(layer: Layer, host: str, modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, int]]:
    """The parameters and buffers that lose channels by a fold, and the dimension that these are in."""
    yield from output_dimensions(layer, modules)
    yield f"{host}{WEIGHT_SUFFIX}", 1


def _plan(graph: ChannelGraph, model: nn.Module, name: str, variance: Tensor) -> _Fold:
    layer, host = graph.layers[name], graph.sites[name].host
    modules = dict(model.named_modules())
    own = np.searchsorted(graph.outputs_left(layer), np.flatnonzero(~graph.removed[layer.out_units]))
    columns = torch.from_numpy(own)
    matrix = in_float64(getattr(modules[host], CHILD).matrix)
    norms = matrix.norm(dim=1)
    norms = torch.where(norms < _ZERO, 0.0, norms)
    unscaled = _Fold(layer, host, columns, norms, torch.ones_like(norms), in_float64(variance))
    mixed = _mixing(unscaled, modules) @ _filters(modules[name], layer)
    length = _filters(modules[name], layer).square().sum(1).mean().sqrt()
    lengths = mixed.norm(dim=1)
    scale = torch.where(lengths > 0, length / lengths, 1.0) if layer.norm else 1 / torch.where(norms > 0, norms, 1.0)
    return replace(unscaled, scale=scale)


def _rows(fold: _Fold, modules: Mapping[str, nn.Module]) -> tuple[Tensor, Tensor]:
    """Q, [R, D], and n, [R], with rows that are zero as those of the identity: something must lie before them."""
    matrix = in_float64(getattr(modules[fold.host], CHILD).matrix)
    identity = nn.functional.one_hot(fold.columns, matrix.shape[1]).double()
    zero = fold.norms == 0
    return torch.where(zero[:, None], identity, matrix), torch.where(zero, 1.0, fold.norms)


def _mixing(fold: _Fold, modules: Mapping[str, nn.Module]) -> Tensor:
    """s A, [R, D]: what the fold makes of the layer's outputs."""
    matrix, _ = _rows(fold, modules)
    if fold.layer.norm is not None:
        matrix = matrix * _bn_scale(modules[fold.layer.norm])
    return fold.scale[:, None] * matrix


def _bn_scale(norm: nn.Module) -> Tensor:
    """gamma / sigma, [D]."""
    return in_float64(norm.weight) * torch.rsqrt(in_float64(norm.running_var) + norm.eps)


def _mixed(mixing: Tensor, value: Tensor, dim: int) -> Tensor:
    """[R, D] times a tensor with D entries along `dim`, which has R there then."""
    return torch.tensordot(mixing, value, ([1], [dim])).movedim(0, dim).contiguous()


def _filters(module: nn.Module, layer: Layer) -> Tensor:
    """[D, in x kernel]"""
    weight = in_float64(module.weight)
    return weight.movedim(layer.output_dim, 0).flatten(1)


def _proven(model: nn.Module, example_inputs: Inputs, change: Callable[[nn.Module], None]) -> nn.Module:
    """A float64 copy of the model on the CPU, changed, whose outputs in eval mode are those that it had before."""
    exact = exact_copy(model)
    inputs, before = inputs_and_outputs(exact, example_inputs)
    change(exact)
    difference = difference_of(before, outputs_of(exact, inputs, torch.float64))
    if not difference <= FLOAT64_TOLERANCE:
        raise ConversionError(
            f"folding in mid-run would change the outputs by {difference:.2e} (float64; at most "
            f"{FLOAT64_TOLERANCE:.0e} is allowed). Train with narrow='rows', and please report the model."
        )
    return exact


def _fold_all(model: nn.Module, folds: Sequence[_Fold]) -> None:
    modules = dict(model.named_modules())
    for fold in folds:
        _fold(fold, modules)


@torch.no_grad()
def _fold(fold: _Fold, modules: Mapping[str, nn.Module]) -> None:
    """The formulas above, on a private copy of the model in float64."""
    layer, module = fold.layer, modules[fold.layer.name]
    matrix, norms = _rows(fold, modules)
    mixing = _mixing(fold, modules)
    if layer.norm is not None:
        _fold_norm(modules[layer.norm], fold, matrix, norms, mixing)
    module.weight.data = _mixed(mixing, module.weight, layer.output_dim)
    if module.bias is not None:
        module.bias.data = mixing @ module.bias
    compactor = getattr(modules[fold.host], CHILD)
    compactor.pwc.weight.data = torch.diag(fold.norms)[:, :, None, None]
    for changed in (module, compactor.pwc):
        count_channels(changed)


def _fold_norm(norm: _BatchNorm, fold: _Fold, matrix: Tensor, norms: Tensor, mixing: Tensor) -> None:
    zero = fold.norms == 0
    variance = torch.where(zero, norm.weight.square()[fold.columns], fold.variance)  # its BN's own, where Q hides it
    running_var = fold.scale.square() * variance
    norm.weight.data = (running_var + norm.eps).sqrt() / (fold.scale * norms)
    norm.bias.data = matrix @ norm.bias / norms
    norm.running_mean = mixing @ norm.running_mean
    norm.running_var = running_var
    count_channels(norm)


def _carry_over(
    fold: _Fold,
    modules: Mapping[str, nn.Module],
    folded: Mapping[str, nn.Module],
    state: MutableMapping[nn.Parameter, dict],
) -> None:
    """The optimiser's numbers of what is folded: where a step would have led, the same step leads afterwards.

    To first order, K' moves by s A dK; gamma' by the share of K's mixed filter that d gamma adds along it; beta' by
    Q d beta / n; and a row's norm by what moves the row along itself. Squared gradients are averaged over the outputs
    that were mixed, by their parts.
    """
    layer, module = fold.layer, modules[fold.layer.name]
    matrix, norms = _rows(fold, modules)
    mixing = _mixing(fold, modules)
    parts = mixing.square() / mixing.square().sum(1, keepdim=True)

    places = {module.weight: layer.output_dim} | ({} if module.bias is None else {module.bias: 0})
    for parameter, dim in places.items():
        _map(state, parameter, partial(_mixed, mixing, dim=dim), partial(_mixed, parts, dim=dim))
    if layer.norm is not None:
        norm = modules[layer.norm]
        filters = _filters(module, layer)
        mixed = mixing @ filters
        new_gamma = folded[layer.norm].weight.detach()

        def of_gamma(value: Tensor) -> Tensor:
            inverse = torch.rsqrt(in_float64(norm.running_var) + norm.eps)
            change = (fold.scale[:, None] * matrix * (inverse * value)) @ filters
            return new_gamma * (change * mixed).sum(1) / mixed.square().sum(1).clamp_min(1e-300)

        _map(state, norm.weight, of_gamma, lambda value: parts @ value)
        _map(state, norm.bias, lambda value: matrix @ value / norms, lambda value: parts @ value)
    directions = matrix / norms[:, None]

    def of_rows(value: Tensor) -> Tensor:  # [R, D, 1, 1] -> [R, R, 1, 1]
        return torch.diag((value.flatten(1) * directions).sum(1))[:, :, None, None]

    def of_squares(value: Tensor) -> Tensor:
        along = (value.flatten(1) * directions.square()).sum(1)
        return along[:, None].expand(-1, len(along))[:, :, None, None].clone()

    _map(state, getattr(modules[fold.host], CHILD).pwc.weight, of_rows, of_squares)


def _map(
    state: MutableMapping[nn.Parameter, dict],
    parameter: nn.Parameter,
    first: Callable[[Tensor], Tensor],
    second: Callable[[Tensor], Tensor],
) -> None:
    """What an optimiser keeps for a parameter through `first`, but what it keeps of squares through `second`."""
    for key, value in numbers_of(state, parameter):
        mapped = (second if key in _SECOND_MOMENTS else first)(in_float64(value))
        state[parameter][key] = mapped.contiguous().to(value, memory_format=format_of(value))
