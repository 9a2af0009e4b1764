"""Fold conv-BN-compactor into narrow plain convs (section 3.2), and what dead channels leave into biases."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from rr.compactors import CHILD, HOOK_KINDS, Compactor, hooks_of_users, remove_compactors
from rr.copies import copy_of
from rr.graph import ChannelGraph, Layer, LayerKind, LiveModel
from rr.graph.computed import plain_layers, without_weight_hooks
from rr.graph.dead_constants import UnfoldableError, dead_constants
from rr.graph.layers import OverChannels
from rr.graph.tensors import in_float64, named_tensors
from rr.runtime import is_first
from rr.weights import Constant, Gone, count_channels, left_of_norm
from rr.weights.counted_means import count_mean
from rr.weights.input_bounds import bound_inputs, hook_bounds
from rr.weights.neighbour_norm import norm_of_some
from rr.weights.written_sizes import has_noted_groups, note_groups, note_sizes

logger = logging.getLogger(__name__)

_PARAMETERS = (LayerKind.VECTOR, LayerKind.COLUMNS, LayerKind.CHOICE)  # kinds of layers that are no modules


@torch.no_grad()
def fold(live: LiveModel, alive: np.ndarray, from_dead: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A copy of the model with the channels of `alive` units only: float64, on the CPU, in eval mode, no compactors.

    No more than one layer of the model itself is in float64 at a time. What a dead unit's compactor rows hold doesn't
    matter.

    Args:
        live: the model, which stays as it is.
        alive: [num_units] of bool.
        from_dead: what `with_unfoldable` found that dead channels add; None: to be found here.
    """
    plain, tensors = _with_plain_layers(live)
    if from_dead is None:
        from_dead = _constants(plain, tensors, alive)
    # What is replaced or goes needs no copy: standing in for it in the memo keeps the copy small and fast.
    stand_ins = _narrow_parameters(plain, tensors, alive)
    narrow_layers = _narrow_layers(plain, live.modules, alive, from_dead, stand_ins)
    hooks = {name: found for name in narrow_layers if (found := layer_hooks(live.graph, name, live.modules[name]))}
    folded = _copy_with_hooks(plain.model, hooks, stand_ins)
    remove_compactors(folded)
    for module in folded.modules():  # users' hooks took the place of all that were there
        hook_bounds(module)
    _note_numbers(folded, live.graph, alive)
    return folded.cpu().double().eval()  # in that order: not all devices have float64


def _narrow_parameters(live: LiveModel, tensors: Mapping[str, Tensor], alive: np.ndarray) -> dict[int, object]:
    """The stand-ins of layers that are parameters or buffers, by the id of what is replaced; of compactors, nothing."""
    stand_ins: dict[int, object] = {
        id(compactor.pwc.weight): nn.Parameter(torch.empty(0)) for compactor in live.compactors.values()
    }
    for layer in live.graph.layers.values():
        if layer.kind in _PARAMETERS:
            narrow = _renumbered if layer.kind is LayerKind.CHOICE else _narrow_parameter
            stand_ins[id(tensors[layer.name])] = narrow(live, layer, tensors[layer.name], alive)
    return stand_ins


def _narrow_layers(
    live: LiveModel,
    own_modules: Mapping[str, nn.Module],
    alive: np.ndarray,
    from_dead: Mapping[str, Tensor],
    stand_ins: dict[int, object],
) -> list[str]:
    """Put the stand-ins of layers that are modules beside the others, by the ids of `own_modules`; returns their names.

    What is in a layer comes first, since the layer's own stand-in holds it.
    """
    layers = [layer for layer in live.graph.layers.values() if layer.kind.is_module]
    layers = [layer for layer in layers if layer.kind is not LayerKind.AFFINE]  # the vectors of these are layers too
    folded_norms = {layer.norm for layer in live.graph.layers.values()}
    layers.sort(key=lambda layer: -layer.name.count("."))
    for layer in layers:
        if layer.kind.has_width:
            narrow = fold_layer(live, layer, alive, from_dead.get(layer.name), stand_ins)
        elif layer.name in folded_norms or not alive[layer.out_units].any():
            narrow = copy_of(left_of_norm(live.modules[layer.name]))
        elif layer.kind is LayerKind.NEIGHBOURS:
            narrow = _narrow_neighbours(live, layer, alive)
        else:
            narrow = _narrow_norm(live, layer, alive)
        stand_ins[id(own_modules[layer.name])] = narrow
    return [layer.name for layer in layers]


def _note_numbers(folded: nn.Module, graph: ChannelGraph, alive: np.ndarray) -> None:
    """Put right what the folded network's modules say of their number of channels, for their forwards and for files."""
    for layer in graph.layers.values():
        if layer.kind in _PARAMETERS:
            count_channels(folded.get_submodule(layer.name.rpartition(".")[0]))
    for layer in graph.layers.values():
        if layer.kind is LayerKind.MEAN:
            full, left = len(layer.out_units), int(alive[layer.out_units].sum())
            if 0 < left < full:
                count_mean(folded.get_submodule(layer.name.rpartition(".")[0]), full, left)
    for sizes in graph.sizes:
        if not all(alive[part].all() for part in sizes.parts):
            module = folded.get_submodule(sizes.module)
            note_sizes(module, sizes.attribute, [int(alive[part].sum()) for part in sizes.parts])


class _WithHooks(nn.Module):
    """A model and the users' hooks on some of its modules, copied together: a hook may hold a module."""

    def __init__(self, model: nn.Module, hooks: dict[str, dict[str, object]]) -> None:
        super().__init__()
        self.model, self.hooks = model, hooks


def with_unfoldable(live: LiveModel, alive: np.ndarray) -> tuple[np.ndarray, dict[str, Tensor]]:
    """`alive` and the dead units that leave, by the values that parameters have now, what no bias can hold.

    A channel of zeros stays for each of them, so that the network computes what it did.

    Returns:
        [num_units] of bool, who stays, and what the others add to each layer's outputs that are left.
    """
    stays, plain = alive.copy(), _with_plain_layers(live)
    while True:
        try:
            from_dead = _constants(*plain, stays)
        except UnfoldableError as error:
            stays[error.units], reason = True, str(error)
        else:
            break
    if (kept := int(stays.sum() - alive.sum())) and is_first():
        logger.warning("%d dead channels stay, as zeros: %s", kept, reason)
    return stays, from_dead


def layer_hooks(graph: ChannelGraph, name: str, layer: nn.Module) -> dict[str, dict[int, object]]:
    """The hooks that users put on a layer, for what replaces it; empty where there are none."""
    hooks, computed = hooks_of_users(layer), graph.computed.get(name)
    return without_weight_hooks(layer, computed.input_shape, hooks) if hooks and computed else hooks


def _copy_with_hooks(
    model: nn.Module, hooks: Mapping[str, dict[int, object]], stand_ins: Mapping[int, object]
) -> nn.Module:
    """A copy with the stand-ins, which have the hooks that users put on the layers that they replace."""
    both = copy_of(_WithHooks(model, hooks), stand_ins)
    for name, of_layer in both.hooks.items():
        vars(both.model.get_submodule(name)).update(of_layer)
    return both.model


def _with_plain_layers(live: LiveModel) -> tuple[LiveModel, dict[str, Tensor]]:
    """The model with plain layers, and their weights, in place of those that compute theirs."""
    tensors, plain = named_tensors(live.model), plain_layers(live.model, live.graph.computed)
    for name, layer in plain.items():
        tensors |= {f"{name}.{leaf}": tensor for leaf, tensor in layer.named_parameters()}
    return live.with_modules(plain), tensors


def _constants(live: LiveModel, tensors: dict[str, Tensor], alive: np.ndarray) -> dict[str, Tensor]:
    """What the dead channels add to each layer's outputs that are left."""
    if alive.all():
        return {}
    layers = live.graph.layers

    def value_of(name: str) -> Tensor:
        return live.remaining.at_full_width(name, in_float64(tensors[name]))

    found = dead_constants(live.graph, alive, value_of)
    return {name: bias[torch.from_numpy(live.remaining.outputs_left(layers[name]))] for name, bias in found.items()}


def _compactor_of(live: LiveModel, layer: Layer) -> Compactor | None:
    site = live.graph.sites.get(layer.name)
    return live.compactors.get(site.host) if site else None


def fold_layer(
    live: LiveModel, layer: Layer, alive: np.ndarray, from_dead: Tensor | None, stand_ins: Mapping[int, object]
) -> nn.Module:
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
    inputs = layer.in_units[alive[layer.in_units]]
    narrowed = _narrowed_before(live, layer, alive)
    for place in narrowed:
        if place.operation == "mean":
            weight[:, inputs == place.result] *= float(alive[place.channels].mean())
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
    narrow = _stand_in(layer, module, bias, alive) or _plain_layer(module, weight, bias, stand_ins)
    if not isinstance(narrow, (Gone, Constant)):
        for place in narrowed:
            if place.operation != "mean":
                bound_inputs(narrow, place.operation, torch.from_numpy(inputs == place.result))
    if layer.kind is LayerKind.ALIKE or has_noted_groups(narrow):
        note_groups(narrow, module.groups if layer.kind is LayerKind.ALIKE else narrow.groups)
    return narrow


def _narrowed_before(live: LiveModel, layer: Layer, alive: np.ndarray) -> list[OverChannels]:
    """The means and extremes of some channels, no longer of all, that a layer reads."""
    shares = ((place, alive[place.channels].mean()) for place in live.graph.over_channels)
    return [place for place, share in shares if layer.name in place.readers and 0 < share < 1]


def _through(compactor: Compactor, columns: Tensor, kept: Tensor) -> Tensor:
    """The kept rows of Q times `columns`, [D, n], for a dense or (block-)diagonal Q."""
    matrix = _exact(compactor.matrix)  # [D, D / groups]
    if compactor.pwc.groups == 1:
        return matrix[kept] @ columns
    groups, size = compactor.pwc.groups, matrix.shape[1]
    blocks = matrix.view(groups, -1, size) @ columns.reshape(groups, size, columns.shape[1])  # [G, D / G, n]
    return blocks.flatten(0, 1)[kept]


def _stand_in(layer: Layer, module: nn.Module, bias: Tensor | None, alive: np.ndarray) -> nn.Module | None:
    """What takes the place of a layer without a live output or input, None for others; `bias` is folded."""
    if not alive[layer.out_units].any():
        return Gone(module)
    if layer.kind.makes_channels and not alive[layer.in_units].any():
        return Constant(module, module.weight.new_zeros(int(alive[layer.out_units].sum())) if bias is None else bias)
    return None


def _plain_layer(module: nn.Module, weight: Tensor, bias: Tensor | None, stand_ins: Mapping[int, object]) -> nn.Module:
    bare = copy.copy(module)  # of its class and with its options, whatever arguments its constructor takes
    bare._parameters = {name: value for name, value in module._parameters.items() if name not in ("weight", "bias")}
    bare._modules = {name: child for name, child in module._modules.items() if name != CHILD}
    for kind in HOOK_KINDS:  # those of users come back in the end
        vars(bare)[kind] = type(vars(bare)[kind])()
    plain = copy_of(bare, stand_ins)
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
    narrow = copy_of(norm)
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


def _narrow_neighbours(live: LiveModel, layer: Layer, alive: np.ndarray) -> nn.Module:
    """A local response norm that is told which of its channels are left, where some aren't."""
    module, full = live.modules[layer.name], len(layer.out_units)
    left = torch.from_numpy(np.flatnonzero(alive[layer.out_units]))
    return copy_of(module) if len(left) == full else norm_of_some(module, full, left)


def _narrow_parameter(live: LiveModel, layer: Layer, tensor: Tensor, alive: np.ndarray) -> Tensor:
    kept = _kept(live, alive, layer.out_units if layer.kind is LayerKind.VECTOR else layer.in_units)
    kept = kept if len(kept) else torch.tensor([0])  # for `Gone`
    narrow = in_float64(tensor)
    owner, _, leaf = layer.name.rpartition(".")
    of_owner = live.graph.layers.get(owner)
    scales = of_owner is not None and of_owner.kind is LayerKind.AFFINE and leaf in ("weight", "bias")
    compactor = _compactor_of(live, of_owner) if scales else None
    if compactor is not None:
        narrow = narrow * _exact(compactor.matrix)[:, 0].view(-1, *[1] * (narrow.dim() - layer.dim - 1))
    narrow = narrow.index_select(layer.dim, kept)
    return nn.Parameter(narrow, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else narrow


def _renumbered(live: LiveModel, layer: Layer, tensor: Tensor, alive: np.ndarray) -> Tensor:
    """Where the live ones of the channels that a buffer chooses stand among the live ones that there are."""
    places = layer.places[alive[layer.out_units]]
    places = np.cumsum(alive[layer.in_units])[places] - 1 if len(places) else [0]  # for `Gone`
    return tensor.new_tensor(places)


def _kept(live: LiveModel, alive: np.ndarray, units: np.ndarray) -> Tensor:
    """The places of live units among those that are still in the model."""
    return torch.from_numpy(np.flatnonzero(alive[live.remaining.present(units)]))


def _exact(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else in_float64(tensor)
