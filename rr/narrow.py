"""Dead channels out of a live model and its optimiser: training gets cheaper as they die (weakness 1 of the original).

A unit whose compactor rows are exactly zero, and whose channels stay zero on all their ways (`silent_units`), adds
nothing to any layer that reads it, and gets nothing back. So its rows, the columns that read it, the channels of layers
between and the optimiser's numbers for all of these can go, and the training function stays what it was. Where the
compactor is diagonal, what the unit's own layers have for it goes as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence

import numpy as np
import torch
from torch import nn

from rr.compactors import CHILD, MASK_SUFFIX, WEIGHT_SUFFIX
from rr.constants import inexact_consumers
from rr.flow import PRODUCERS
from rr.graph import ChannelGraph, Layer
from rr.weights import count_channels


def take_out(
    models: Sequence[nn.Module],
    graph: ChannelGraph,
    units: np.ndarray,
    optimizers: Sequence[torch.optim.Optimizer] = (),
) -> None:
    """Take `units` out of the models (a model, and copies of it), of the optimisers' states and of `graph`, in place.

    units: numbers of units in `graph`, silent, with compactor rows of zero. Every parameter stays the object that it
    is, with fewer numbers in it (`parameter.data`), so it keeps its place in the optimiser and in its groups.
    """
    graph.removed[units] = True
    modules = dict(models[0].named_modules())
    states = [optimizer.state for optimizer in optimizers]
    for name, dim, remaining, full_size in list(_narrowed(graph, modules)):
        keep_positions(models, graph, name, dim, remaining, full_size, states)


def keep_positions(
    models: Sequence[nn.Module],
    graph: ChannelGraph,
    name: str,
    dim: int,
    remaining: np.ndarray,
    full_size: int,
    states: Sequence[dict] = (),
) -> None:
    """Leave a parameter or buffer, of its `full_size` positions along `dim`, those of `remaining`; `graph` takes note.

    states: of optimisers, whose numbers for the parameter are cut alike
    """
    before = graph.remaining.get(name, {}).get(dim, (np.arange(full_size), full_size))[0]
    kept = np.flatnonzero(np.isin(before, remaining))
    if len(kept) == len(before):
        return
    graph.remaining.setdefault(name, {})[dim] = remaining, full_size
    for model in models:
        _cut(model, name, dim, torch.from_numpy(kept), states)
        count_channels(model.get_submodule(name.rpartition(".")[0]))


def silent_units(graph: ChannelGraph, model: nn.Module) -> np.ndarray:
    """[num_units] of bool: prunable units that, dead, hand nothing to any layer, neither in training nor afterwards.

    One that leaves a constant (a depthwise conv-BN-ReLU makes it) does: that BN's shift would still learn.
    """
    silent = graph.prunable
    silent[list(inexact_consumers(graph, model, silent=True))] = False
    return silent


def full_state(graph: ChannelGraph, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict of the narrowed model at full width: zeros where channels were taken out.

    So weights written in mid-run load into the full network with its compactors, and convert to the same narrow one.
    """
    return {name: graph.at_full_width(name, tensor) for name, tensor in state.items()}


def _narrowed(graph: ChannelGraph, modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, int, np.ndarray, int]]:
    """Parameters and buffers with removed channels: name, dimension, the positions that remain of so many."""
    behind_producers = {layer.norm for layer in graph.layers.values() if layer.kind in PRODUCERS}

    def along(name: str, dim: int, units: np.ndarray) -> Iterator[tuple[str, int, np.ndarray, int]]:
        if graph.removed[units].any():
            yield name, dim, np.flatnonzero(~graph.removed[units]), len(units)

    for layer in graph.layers.values():
        if layer.kind in PRODUCERS:
            yield from along(f"{layer.name}.weight", 1 - layer.output_dim, layer.in_units)
        elif layer.kind == "vector":
            yield from along(layer.name, layer.dim, layer.out_units)
        elif layer.name not in behind_producers:  # those are in front of the compactor
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                if getattr(modules[layer.name], leaf, None) is not None:
                    yield from along(f"{layer.name}.{leaf}", 0, layer.out_units)
    for site in graph.sites.values():
        if hasattr(modules[site.host], CHILD):
            yield from along(f"{site.host}{WEIGHT_SUFFIX}", 0, site.units)
            yield from along(f"{site.host}{MASK_SUFFIX}", 0, site.units)
            if site.is_diagonal:  # no other channel is made of what the layer has for this one
                for name, dim in output_dimensions(graph.layers[site.layer], modules):
                    yield from along(name, dim, site.units)


def output_dimensions(layer: Layer, modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, int]]:
    """The parameters and buffers of a producer and its BN with an entry per output, and the dimension for these."""
    if layer.kind not in PRODUCERS:  # their channels are their inputs'
        return
    yield f"{layer.name}.weight", layer.output_dim
    if modules[layer.name].bias is not None:
        yield f"{layer.name}.bias", 0
    if layer.norm is not None:
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            if getattr(modules[layer.norm], leaf, None) is not None:
                yield f"{layer.norm}.{leaf}", 0


def _cut(model: nn.Module, name: str, dim: int, kept: torch.Tensor, states: Sequence[dict]) -> None:
    """Keep these places of a parameter or buffer, and of what optimisers have for it."""
    owner, _, leaf = name.rpartition(".")
    tensor = getattr(model.get_submodule(owner), leaf)

    def cut(full: torch.Tensor) -> torch.Tensor:
        return full.index_select(dim, kept.to(full.device)).clone(memory_format=format_of(full))

    for state in states:
        for key, value in numbers_of(state, tensor):
            state[tensor][key] = cut(value)
    put_tensor(model, name, cut(tensor.detach()))


def numbers_of(state: MutableMapping[nn.Parameter, dict], parameter: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """What an optimiser keeps for each number of a parameter, by name.

    Where it keeps sums over rows and columns instead (Adafactor), which nothing can be taken out of, all that it has
    for the parameter is dropped, so that it begins anew with that.
    """
    tensors = {key: value for key, value in state.get(parameter, {}).items() if isinstance(value, torch.Tensor)}
    if any(value.shape != parameter.shape and value.numel() > 1 for value in tensors.values()):
        del state[parameter]
        return []
    return [(key, value) for key, value in tensors.items() if value.shape == parameter.shape]


def put_tensor(model: nn.Module, name: str, values: torch.Tensor) -> None:
    """Give a parameter or buffer other values, of another shape perhaps; a parameter stays the object that it is."""
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    tensor = getattr(owner, leaf)
    values = values.to(tensor, memory_format=format_of(tensor))
    if not isinstance(tensor, nn.Parameter):
        setattr(owner, leaf, values)
        return
    # Another type in between makes autograd forget the node that adds up the parameter's gradient, which knows the old
    # shape and stays while something (DistributedDataParallel) holds it. Not all devices have float64.
    tensor.data = values.new_empty(0, dtype=torch.float32 if values.dtype == torch.float16 else torch.float16)
    tensor.data = values
    tensor.grad = None


def format_of(tensor: torch.Tensor) -> torch.memory_format:
    """Channels-last, or what a copy takes by itself."""
    if tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.preserve_format
