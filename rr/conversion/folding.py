"""Fold conv-BN-compactor into narrow plain convs (section 3.2), and what dead channels leave into biases."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from rr.compactors import Compactor, remove_compactors
from rr.graph import Layer, LayerKind, LiveModel
from rr.graph.dead_constants import dead_constants
from rr.graph.tensors import in_float64, named_tensors
from rr.weights import Constant, Gone, count_channels, left_of_norm


@torch.no_grad()
def fold(live: LiveModel, alive: np.ndarray) -> nn.Module:
    """A copy of the model with the channels of `alive` units only: float64, on the CPU, in eval mode, no compactors.

    No more than one layer of the model itself is in float64 at a time. What a dead unit's compactor rows hold doesn't
    matter.

    Args:
        live: the model, which stays as it is.
        alive: [num_units] of bool.
    """
    graph, tensors = live.graph, named_tensors(live.model)
    from_dead = {} if alive.all() else _constants(live, tensors, alive)
    folded_norms = {layer.norm for layer in graph.layers.values()}
    replaced: dict[str, nn.Module] = {}
    vectors: dict[str, Tensor] = {}
    for layer in graph.layers.values():
        if layer.kind.has_width:
            replaced[layer.name] = _fold_layer(live, layer, alive, from_dead.get(layer.name))
        elif layer.kind is LayerKind.VECTOR:
            vectors[layer.name] = _narrow_vector(live, layer, tensors[layer.name], alive)
        elif layer.name in folded_norms or not alive[layer.out_units].any():
            replaced[layer.name] = copy.deepcopy(left_of_norm(live.modules[layer.name]))
        else:
            replaced[layer.name] = _narrow_norm(live, layer, alive)
    # What is replaced or goes needs no copy: standing in for it in the memo keeps the copy small and fast.
    stand_ins = {id(live.modules[name]): module for name, module in replaced.items()}
    stand_ins |= {id(tensors[name]): tensor for name, tensor in vectors.items()}
    stand_ins |= {id(compactor.pwc.weight): nn.Parameter(torch.empty(0)) for compactor in live.compactors.values()}
    folded = copy.deepcopy(live.model, stand_ins)
    remove_compactors(folded)
    for name in vectors:
        count_channels(folded.get_submodule(name.rpartition(".")[0]))
    return folded.cpu().double().eval()  # in that order: not all devices have float64


def _constants(live: LiveModel, tensors: dict[str, Tensor], alive: np.ndarray) -> dict[str, Tensor]:
    """What the dead channels add to each layer's outputs that are left."""
    layers = live.graph.layers

    def value_of(name: str) -> Tensor:
        return live.remaining.at_full_width(name, in_float64(tensors[name]))

    found = dead_constants(live.graph, alive, value_of)
    return {name: bias[torch.from_numpy(live.remaining.outputs_left(layers[name]))] for name, bias in found.items()}


def _compactor_of(live: LiveModel, layer: Layer) -> Compactor | None:
    site = live.graph.sites.get(layer.name)
    return live.compactors.get(site.host) if site else None


def _fold_layer(live: LiveModel, layer: Layer, alive: np.ndarray, from_dead: Tensor | None) -> nn.Module:
    """K' = K gamma / sqrt(var + eps), b' = beta + (b - mean) gamma / sqrt(var + eps), K'' = Q K', b'' = Q b'."""
    module = live.modules[layer.name]
    weight, bias = _exact(module.weight), _exact(module.bias)
    if layer.output_dim == 1:
        weight = weight.transpose(0, 1)  # [out, in, ...]
    out_kept = _kept(live, alive, layer.out_units)
    if from_dead is not None:
        bias = from_dead if bias is None else bias + from_dead
    if layer.kind.makes_channels:  # in the others a group goes with all its channels
        weight = weight[:, _kept(live, alive, layer.in_units)]
    if layer.norm is not None:
        scale, shift = _norm_as_affine(live.modules[layer.norm])
        weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
        bias = shift if bias is None else shift + bias * scale
    compactor = _compactor_of(live, layer)
    if compactor is not None:
        weight = _through(compactor, weight.flatten(1), out_kept).view(len(out_kept), *weight.shape[1:])
        bias = None if bias is None else _through(compactor, bias[:, None], out_kept)[:, 0]
    else:
        weight = weight[out_kept]
        bias = None if bias is None else bias[out_kept]
    if layer.output_dim == 1:
        weight = weight.transpose(0, 1).contiguous()
    return _stand_in(layer, module, bias, alive) or _plain_layer(module, weight, bias)


def _through(compactor: Compactor, columns: Tensor, kept: Tensor) -> Tensor:
    """The kept rows of Q times `columns`, [D, n], for a dense or (block-)diagonal Q."""
    matrix = _exact(compactor.matrix)  # [D, D / groups]
    if compactor.pwc.groups == 1:
        return matrix[kept] @ columns
    groups, size = compactor.pwc.groups, matrix.shape[1]
    blocks = matrix.view(groups, size, size) @ columns.reshape(groups, size, columns.shape[1])  # [G, D / G, n]
    return blocks.flatten(0, 1)[kept]


def _stand_in(layer: Layer, module: nn.Module, bias: Tensor | None, alive: np.ndarray) -> nn.Module | None:
    """What takes the place of a layer without a live output or input, None for others; `bias` is folded."""
    if not alive[layer.out_units].any():
        return Gone(module)
    if layer.kind.makes_channels and not alive[layer.in_units].any():
        return Constant(module, module.weight.new_zeros(int(alive[layer.out_units].sum())) if bias is None else bias)
    return None


def _plain_layer(module: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    bare = copy.copy(module)  # of its class and with its options, whatever arguments its constructor takes
    for name in ("_parameters", "_modules", "_forward_hooks", "_forward_pre_hooks"):
        bare.__dict__[name] = type(module.__dict__[name])()
    plain = copy.deepcopy(bare)
    trains = module.weight.requires_grad
    plain.weight = nn.Parameter(weight, requires_grad=trains)
    plain.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=trains))
    count_channels(plain)
    return plain


def _norm_as_affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """BN in eval mode as y = scale x + shift."""
    inverse = torch.rsqrt(_exact(norm.running_var) + norm.eps)
    scale = inverse if norm.weight is None else _exact(norm.weight) * inverse
    shift = -_exact(norm.running_mean) * scale
    return scale, shift if norm.bias is None else shift + _exact(norm.bias)


def _narrow_norm(live: LiveModel, layer: Layer, alive: np.ndarray) -> nn.Module:
    """A BN that stands alone, with the kept channels; a diagonal compactor behind it goes into its gamma and beta."""
    norm, compactor = live.modules[layer.name], _compactor_of(live, layer)
    kept = _kept(live, alive, layer.out_units)
    narrow = copy.deepcopy(norm)
    mean, variance, weight, bias = map(_exact, (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    if compactor is not None:
        weight = torch.ones_like(mean) if weight is None else weight
        bias = torch.zeros_like(mean) if bias is None else bias
        weight, bias = (_exact(compactor.matrix)[:, 0] * value for value in (weight, bias))
        narrow.affine = True
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            trains = norm.weight is None or norm.weight.requires_grad
            setattr(narrow, name, nn.Parameter(value[kept], requires_grad=trains))
    narrow.running_mean, narrow.running_var = mean[kept], variance[kept]
    count_channels(narrow)
    return narrow


def _narrow_vector(live: LiveModel, layer: Layer, tensor: Tensor, alive: np.ndarray) -> Tensor:
    kept = _kept(live, alive, layer.out_units)
    kept = kept if len(kept) else torch.tensor([0])  # for `Gone`
    narrow = tensor.detach().cpu().index_select(layer.dim, kept)
    return nn.Parameter(narrow, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else narrow


def _kept(live: LiveModel, alive: np.ndarray, units: np.ndarray) -> Tensor:
    """The places of live units among those that are still in the model."""
    return torch.from_numpy(np.flatnonzero(alive[live.remaining.present(units)]))


def _exact(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else in_float64(tensor)
