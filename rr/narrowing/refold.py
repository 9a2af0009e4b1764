"""Compactors folded into their convolutions in mid-run: the convolutions' dead outputs go as well.

Taking out rows (`rr.narrowing.take_out`) leaves a convolution its full width: its compactor's columns read all of it.
Folding turns conv-BN-compactor into a narrow convolution, a fresh BN and a fresh diagonal compactor that together
compute, in eval mode, what they did (`rr.narrowing.layer_fold` has the formulas). When nothing more is to die, the
diagonal ones go into what is before them as well (`retire`), and what trains on is a plain narrow network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rr.compactors import CHILD, WEIGHT_SUFFIX
from rr.conversion.proof import (
    FLOAT64_TOLERANCE,
    ConversionError,
    exact_copy,
    measured_probes,
    outputs_of,
)
from rr.graph import Inputs, Layer, LayerKind, LiveModel, Site
from rr.narrowing.layer_fold import LayerFold, Modules, mixed, planned
from rr.narrowing.momentum import carry_over
from rr.narrowing.take_out import keep_positions, output_dimensions
from rr.narrowing.tensors import SECOND_MOMENTS, OptimizerState, numbers_of, put_tensor
from rr.weights import count_channels


def refoldable(live: LiveModel) -> list[str]:
    """Layers whose (dense) compactor can be folded into them in mid-run."""
    return [
        name
        for name, site in live.graph.sites.items()
        if site.host in live.compactors
        and live.graph.layers[name].kind.makes_channels
        and site.groups == 1
        and name not in live.graph.computed
        and (live.graph.layers[name].norm is None or _takes_factors(live.modules[live.graph.layers[name].norm]))
    ]


def _takes_factors(norm: nn.Module) -> bool:
    """Whether a BN has the numbers that a fold changes."""
    return norm.weight is not None and norm.bias is not None and norm.running_var is not None


def outputs_of_layer(live: LiveModel, name: str) -> tuple[int, int]:
    """How many of a layer's outputs are alive (its compactor's rows), and how many it has (the columns)."""
    matrix = live.compactors[live.graph.sites[name].host].matrix
    return matrix.shape[0], matrix.shape[1]


def refold(
    lives: Sequence[LiveModel],
    variances: Mapping[str, Tensor],
    example_inputs: Inputs,
    states: Sequence[OptimizerState] = (),
) -> None:
    """Fold the compactors of some layers into them, in place, in a model and in its followers.

    Parameters stay the same objects. The optimisers' numbers go through the same linear map as their parameters, so
    that the next steps go on in the direction of the last ones.

    Args:
        lives: the model and its followers.
        variances: layer -> [R], the variance of its compactor's outputs, one for each row that it has.
        example_inputs: what the model is called with.
        states: the states of the model's optimisers.

    Raises:
        ConversionError: if a model's outputs in eval mode would change (float64); the models then stay as they were.
    """
    live = lives[0]
    folds = [planned(live, name, variance) for name, variance in variances.items()]
    exact_models = [_proven(each.model, example_inputs, partial(_fold_all, folds=folds)) for each in lives]
    folded = dict(exact_models[0].named_modules())
    for state in states:
        for fold in folds:
            carry_over(fold, live.modules, folded, state)
    for fold in folds:
        positions = np.flatnonzero(~live.remaining.removed[fold.layer.out_units])
        for name, dim in _dimensions(fold.layer, fold.host, live.modules):
            live.remaining.positions.setdefault(name, {})[dim] = positions, len(fold.layer.out_units)
    for each, exact in zip(lives, exact_models, strict=True):
        values = dict(exact.named_parameters()) | dict(exact.named_buffers())
        for fold in folds:
            for name in dict.fromkeys(name for name, _ in _dimensions(fold.layer, fold.host, live.modules)):
                put_tensor(each.model, name, values[name].detach())
                count_channels(each.model.get_submodule(name.rpartition(".")[0]))


def can_retire(live: LiveModel) -> bool:
    """Whether all compactors can go into what is before them: the dense ones by folding, diagonal ones as factors."""
    foldable = set(refoldable(live))

    def goes(name: str, site: Site) -> bool:
        layer = live.graph.layers[name]
        norm = name if layer.kind is LayerKind.NORM else layer.norm
        takes_factors = name not in live.graph.computed if norm is None else _takes_factors(live.modules[norm])
        return name in foldable or (site.is_diagonal and takes_factors)

    return all(goes(name, site) for name, site in live.graph.sites.items() if site.host in live.compactors)


def retire(lives: Sequence[LiveModel], example_inputs: Inputs, states: Sequence[OptimizerState] = ()) -> None:
    """Put diagonal compactors into what is before them, in place; they stay as identities that no step runs or trains.

    What is left is a plain narrow network, in training too.

    Args:
        lives, example_inputs, states: as in `refold`.

    Raises:
        ConversionError: as `refold` does.
    """
    for each in lives:
        _proven(each.model, example_inputs, lambda exact, each=each: _absorb(each.follower(exact)))
    for each in lives:
        _absorb(each, states if each is lives[0] else ())
        put_out_of_use(each)


def put_out_of_use(live: LiveModel) -> None:
    """Let no step run or train the compactors, which are identities by now (or once a state is loaded)."""
    for compactor in live.compactors.values():
        compactor.bypassed = True
        compactor.pwc.weight.requires_grad_(False)
        compactor.pwc.weight.grad = None


@torch.no_grad()
def _absorb(live: LiveModel, states: Sequence[OptimizerState] = ()) -> None:
    """Multiply the factors of diagonal compactors into the BN or the layer before them."""
    for name, site in live.graph.sites.items():
        if site.host not in live.compactors:
            continue
        compactor, layer = live.compactors[site.host], live.graph.layers[name]
        factors = (compactor.matrix.diagonal() if site.groups == 1 else compactor.matrix[:, 0]).clone()
        target, dim = live.modules[layer.norm or name], 0 if layer.norm else layer.output_dim
        _scale(target.weight, factors.view(-1, *[1] * (target.weight.dim() - dim - 1)), states)
        if target.bias is not None:
            _scale(target.bias, factors.view(-1, *[1] * (target.bias.dim() - 1)), states)
        nn.init.dirac_(compactor.pwc.weight, compactor.pwc.groups)


def _scale(parameter: nn.Parameter, factors: Tensor, states: Sequence[OptimizerState]) -> None:
    parameter.mul_(factors)
    for state in states:
        for key, value in numbers_of(state, parameter):
            value.mul_(factors.square() if key in SECOND_MOMENTS else factors)


def folded_outputs(live: LiveModel) -> dict[str, list[int]]:
    """Layer -> the places that are left of its outputs, for each that has been folded (for `take_columns_out`)."""
    mixed_ones = (live.graph.layers[name] for name, site in live.graph.sites.items() if not site.is_diagonal)
    makers = (layer for layer in mixed_ones if layer.kind.makes_channels)
    left = {layer.name: (live.remaining.outputs_left(layer), len(layer.out_units)) for layer in makers}
    return {name: places.tolist() for name, (places, full) in left.items() if len(places) < full}


def take_columns_out(live: LiveModel, outputs: Mapping[str, Sequence[int]]) -> None:
    """Give layers the shapes that folding gave them (`folded_outputs`), so that the state of that time loads."""
    for layer_name, places in outputs.items():
        layer = live.graph.layers[layer_name]
        for name, dim in _dimensions(layer, live.graph.sites[layer_name].host, live.modules):
            keep_positions([live], name, dim, np.array(places, dtype=np.int64), len(layer.out_units))


def _dimensions(layer: Layer, host: str, modules: Modules) -> Iterator[tuple[str, int]]:
    """The parameters and buffers that lose channels by a fold, and the dimension that these are in."""
    yield from output_dimensions(layer, modules)
    yield f"{host}{WEIGHT_SUFFIX}", 1


def _proven(model: nn.Module, example_inputs: Inputs, change: Callable[[nn.Module], None]) -> nn.Module:
    """A float64 copy of the model on the CPU, changed, whose outputs in eval mode are those that it had before."""
    exact = exact_copy(model)
    probes = measured_probes(exact, example_inputs)
    change(exact)
    difference = max(probe.difference(outputs_of(exact, probe.inputs, torch.float64)) for probe in probes)
    if not difference <= FLOAT64_TOLERANCE:
        raise ConversionError(
            f"folding in mid-run would change the outputs by {difference:.2e} (float64; at most "
            f"{FLOAT64_TOLERANCE:.0e} is allowed). Train with narrow='rows', and please report the model."
        )
    return exact


@torch.no_grad()
def _fold_all(model: nn.Module, folds: Sequence[LayerFold]) -> None:
    """Fold these layers, in a private copy of the model in float64."""
    modules = dict(model.named_modules())
    for fold in folds:
        _fold(fold, modules)


def _fold(fold: LayerFold, modules: Modules) -> None:
    layer, module = fold.layer, modules[fold.layer.name]
    matrix, norms = fold.rows(modules)
    mixing = fold.mixing(modules)
    if layer.norm is not None:
        _fold_norm(modules[layer.norm], fold, matrix, norms, mixing)
    module.weight.data = mixed(mixing, module.weight, layer.output_dim)
    if module.bias is not None:
        module.bias.data = mixing @ module.bias
    compactor = getattr(modules[fold.host], CHILD)
    compactor.pwc.weight.data = torch.diag(fold.norms)[:, :, None, None]
    for changed in (module, compactor.pwc):
        count_channels(changed)


def _fold_norm(norm: _BatchNorm, fold: LayerFold, matrix: Tensor, norms: Tensor, mixing: Tensor) -> None:
    zero = fold.norms == 0
    variance = torch.where(zero, norm.weight.square()[fold.columns], fold.variance)  # its BN's own, where Q hides it
    running_var = fold.scale.square() * variance
    norm.weight.data = (running_var + norm.eps).sqrt() / (fold.scale * norms)
    norm.bias.data = matrix @ norm.bias / norms
    norm.running_mean = mixing @ norm.running_mean
    norm.running_var = running_var
    count_channels(norm)
