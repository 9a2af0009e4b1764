"""Dead channels out of a live model and its optimiser: training gets cheaper as they die.

A unit whose compactor rows are exactly zero, and whose channels stay zero on all their ways (`silent_units`), adds
nothing to any layer that reads it, and gets nothing back. So its rows, the columns that read it, the channels of layers
in between and the optimiser's numbers for all of these can go, and the training function stays what it was. Where the
compactor is diagonal, what the unit's own layers have for it goes as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rr.compactors import CHILD, MASK_SUFFIX, WEIGHT_SUFFIX
from rr.graph import ChannelGraph, Layer, LayerKind, LiveModel
from rr.graph.computed import with_plain_layers
from rr.graph.dead_constants import inexact_consumers
from rr.narrowing.tensors import OptimizerState, format_of, numbers_of, put_tensor
from rr.weights import count_channels
from rr.weights.written_sizes import change_sizes

_PER_CHANNEL = ("weight", "bias", "running_mean", "running_var")


def take_out(lives: Sequence[LiveModel], units: np.ndarray, states: Sequence[OptimizerState] = ()) -> None:
    """Take `units` out of a model and copies of it, and of the optimisers' states, in place.

    Every parameter stays the object that it is, with fewer numbers in it (`parameter.data`), so it keeps its place in
    the optimiser and in its groups.

    Args:
        lives: the model and its followers, which have the same channels left.
        units: the units' numbers; they must be silent, with compactor rows of zero.
        states: the states of the model's optimisers.
    """
    live = lives[0]
    live.remaining.removed[units] = True
    for name, dim, remaining, full_size in list(_narrowed(live)):
        keep_positions(lives, name, dim, remaining, full_size, states)
    for sizes in live.graph.sizes:
        for each in lives:
            left = [len(each.remaining.present(part)) for part in sizes.parts]
            change_sizes(each.model.get_submodule(sizes.module), sizes.attribute, left)


def keep_positions(
    lives: Sequence[LiveModel],
    name: str,
    dim: int,
    remaining: np.ndarray,
    full_size: int,
    states: Sequence[OptimizerState] = (),
) -> None:
    """Cut a parameter or buffer down to some of its positions along a dimension, in place.

    Args:
        lives: the model and its followers.
        name: the parameter's or buffer's name in the model.
        dim: the dimension.
        remaining: the positions, of those at full width, that stay.
        full_size: how many positions there are at full width.
        states: of optimisers, whose numbers for the parameter are cut in the same way.
    """
    positions = lives[0].remaining.positions
    before = positions.get(name, {}).get(dim, (np.arange(full_size), full_size))[0]
    kept = np.flatnonzero(np.isin(before, remaining))
    if len(kept) == len(before):
        return
    positions.setdefault(name, {})[dim] = remaining, full_size
    for live in lives:
        _cut(live.model, name, dim, torch.from_numpy(kept), states)
        count_channels(live.model.get_submodule(name.rpartition(".")[0]))


def silent_units(graph: ChannelGraph, model: nn.Module) -> np.ndarray:
    """[num_units] of bool: prunable units that, dead, hand nothing to any layer, neither in training nor afterwards.

    One that leaves a constant (a depthwise conv-BN-ReLU makes it) does: that BN's shift would still learn.
    """
    silent = graph.prunable
    plain = with_plain_layers(model, graph.computed)
    silent[list(inexact_consumers(graph, plain, graph.prunable, silent=True))] = False
    for name in graph.computed.keys() & graph.layers.keys():  # only their own modules know what they make of parameters
        for units in (graph.layers[name].out_units, graph.layers[name].in_units):
            silent[units] = False
    for layer in graph.layers.values():
        # The first goes by whole blocks of its compactor; what the others hold is the full network's until the end.
        if layer.kind in (LayerKind.ALIKE, LayerKind.MEAN, LayerKind.NEIGHBOURS):
            silent[layer.out_units] = False
        elif layer.kind is LayerKind.CHOICE:
            silent[layer.in_units] = False
    for place in graph.over_channels:  # what makes up for it comes with a conversion
        silent[place.channels] = False
    return silent


def output_dimensions(layer: Layer, modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, int]]:
    """The parameters and buffers of a layer and its BN with an entry per output that it makes, and which dimension."""
    if not layer.kind.makes_channels:  # their channels are their inputs'
        return
    yield f"{layer.name}.weight", layer.output_dim
    if modules[layer.name].bias is not None:
        yield f"{layer.name}.bias", 0
    if layer.norm is not None:
        yield from ((name, 0) for name in _per_channel(layer.norm, modules))


def _per_channel(norm: str, modules: Mapping[str, nn.Module]) -> list[str]:
    """The parameters and buffers of a BN, or of a layer that keeps channels apart, with an entry per channel."""
    return [f"{norm}.{leaf}" for leaf in _PER_CHANNEL if getattr(modules[norm], leaf, None) is not None]


def _narrowed(live: LiveModel) -> Iterator[tuple[str, int, np.ndarray, int]]:
    """Parameters and buffers with removed channels: name, dimension, the positions that remain, and of how many."""
    graph, modules, removed = live.graph, live.modules, live.remaining.removed
    before_compactors = {layer.norm for layer in graph.layers.values() if layer.kind.makes_channels}

    def along(name: str, dim: int, units: np.ndarray) -> Iterator[tuple[str, int, np.ndarray, int]]:
        if removed[units].any():
            yield name, dim, np.flatnonzero(~removed[units]), len(units)

    for layer in graph.layers.values():
        if layer.name in graph.computed or layer.kind is LayerKind.AFFINE:  # the vectors of these are layers themselves
            continue
        if layer.kind.makes_channels:
            yield from along(f"{layer.name}.weight", 1 - layer.output_dim, layer.in_units)
        elif layer.kind is LayerKind.VECTOR:
            yield from along(layer.name, layer.dim, layer.out_units)
        elif layer.kind is LayerKind.COLUMNS:
            yield from along(layer.name, layer.dim, layer.in_units)
        elif layer.kind.is_module and layer.name not in before_compactors:
            for name in _per_channel(layer.name, modules):
                yield from along(name, 0, layer.out_units)
    for site in graph.sites.values():
        if hasattr(modules[site.host], CHILD):
            yield from along(f"{site.host}{WEIGHT_SUFFIX}", 0, site.units)
            yield from along(f"{site.host}{MASK_SUFFIX}", 0, site.units)
            if site.is_diagonal and site.layer not in graph.computed:
                # No other channel is made of what the layer has for this one.
                for name, dim in output_dimensions(graph.layers[site.layer], modules):
                    yield from along(name, dim, site.units)


def _cut(model: nn.Module, name: str, dim: int, kept: Tensor, states: Sequence[OptimizerState]) -> None:
    """Keep these places of a parameter or buffer, and of what optimisers have for it."""
    owner, _, leaf = name.rpartition(".")
    tensor = getattr(model.get_submodule(owner), leaf)

    def cut(full: Tensor) -> Tensor:
        return full.index_select(dim, kept.to(full.device)).clone(memory_format=format_of(full))

    for state in states:
        for key, value in numbers_of(state, tensor):
            state[tensor][key] = cut(value)
    put_tensor(model, name, cut(tensor.detach()))
