"""A full network made as narrow as the arrays of its converted file, from their shapes alone.

What a conversion (`rr.conversion`) does to modules shows in the file: layers have fewer channels, convolutions and
linear layers have a bias where a batch norm was folded into them, and that batch norm's own entries are gone.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from rr.compactors import CHILD
from rr.weights.channel_counts import INPUT_WEIGHTS, count_channels
from rr.weights.counted_means import fit_mean
from rr.weights.input_bounds import fit_bounds
from rr.weights.neighbour_norm import norm_in_file
from rr.weights.plain_layers import MARK, PlainLayer
from rr.weights.stand_ins import Constant, Gone
from rr.weights.written_sizes import fit_sizes, has_noted_groups, note_groups

Shape = tuple[int, ...]
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear)
_OWN_LAYERS = "torch.nn.modules."
_NOT_LAYERS = ("torch.nn.modules.module", "torch.nn.modules.container")


def fit_shapes(model: nn.Module, arrays: Mapping[str, np.ndarray | Tensor]) -> None:
    """Give the layers of a full network the shapes that a converted file's arrays have, in place.

    Convolutions and linear layers get the file's channels (groups that go whole, as a depthwise layer's do, are fewer
    then) and a bias or none; batch norms and parameters of a user's own modules get the file's channels; a batch
    norm of which the file has nothing was folded, and what it leaves takes its place. Nothing is traced, and no value
    is loaded. What can't have the file's shape (more channels than the full network, another kernel) keeps its own,
    so that a strict load of the arrays (`load_strict`) names it.

    Args:
        model: the full network, without compactors.
        arrays: array by name, as in the converted network's state dict.
    """
    shapes: dict[str, dict[str, Shape]] = defaultdict(dict)
    for name, array in arrays.items():
        module_name, _, leaf = name.rpartition(".")
        shapes[module_name][leaf] = tuple(array.shape)
    folded: dict[nn.Module, nn.Module] = {}
    for name, module in model.named_modules():
        own = shapes.get(name, {})
        fit_sizes(module, own)
        fit_mean(module, own)
        if MARK in own and "weight" in own:
            folded[module] = _plain(module, arrays[f"{name}.{MARK}"], own)
        elif "gone" in own and isinstance(module, _LAYERS):
            folded[module] = Gone(module)
        elif "constant" in own and isinstance(module, _LAYERS):
            folded[module] = Constant(module, module.weight.new_empty(own["constant"]))
        elif isinstance(module, nn.LocalResponseNorm) and "neighbours" in own:
            folded[module] = norm_in_file(module, own, next(model.parameters()).device) or module
        elif isinstance(module, _NormBase):
            if own or not module.state_dict():
                _fit_norm(module, own)
            else:
                folded[module] = left_of_norm(module)
        elif isinstance(module, _CONVOLUTIONS):
            _fit_convolution(module, own)
        elif isinstance(module, _TRANSPOSED):
            _fit_transposed(module, own)
        elif isinstance(module, nn.Linear):
            _fit_linear(module, own)
        elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            _fit_recurrent(module, own)
        elif isinstance(module, nn.PReLU) or (isinstance(module, nn.GroupNorm) and _has_whole_groups(module, own)):
            _fit_entries(module, own)
            count_channels(module)
        elif not _is_layer(module):
            _fit_entries(module, own)
        fit_bounds(folded.get(module, module), own)
    for parent in model.modules():
        for name, child in parent._modules.items():  # named_children() gives a module with two names once
            if child in folded:
                parent._modules[name] = folded[child]


def _plain(module: nn.Module, mark: np.ndarray | Tensor, own: Mapping[str, Shape]) -> nn.Module:
    """The plain layer that took the place of one that computed its weight from parameters."""
    anchor = next(module.parameters())
    weight, bias = (anchor.new_empty(own[leaf]) if leaf in own else None for leaf in ("weight", "bias"))
    return PlainLayer.of_mark(mark).build(weight, bias)


def left_of_norm(norm: nn.Module) -> nn.Module:
    """What is left of a batch norm that was folded: nothing, or the layers that it runs after its own operation.

    (timm's BatchNormAct2d runs its children `drop` and `act`.) They have no parameters, so the file can't tell.
    """
    children = OrderedDict((name, child) for name, child in norm.named_children() if name != CHILD)
    return nn.Sequential(children) if children else nn.Identity()


def _fit_convolution(conv: nn.Module, own: Mapping[str, Shape]) -> None:
    weight, full = own.get("weight"), tuple(conv.weight.shape)  # [out, in / groups, *kernel]
    if weight is None or not _is_narrower(weight, full) or weight[2:] != full[2:]:
        return
    if has_noted_groups(conv) and weight[0] % (noted := conv.groups) == 0:
        _give_weight_and_bias(conv, own, weight[0])
        note_groups(conv, noted)
        return
    groups, rest = divmod(conv.groups * weight[0], full[0])
    if conv.groups > 1 and (rest or groups == 0 or weight[1] != full[1]):
        return
    _give_weight_and_bias(conv, own, weight[0])


def _fit_transposed(conv: nn.Module, own: Mapping[str, Shape]) -> None:
    weight, full = own.get("weight"), tuple(conv.weight.shape)  # [in, out / groups, *kernel]
    if weight is None or not _is_narrower(weight, full) or weight[2:] != full[2:] or conv.groups > 1:
        return
    _give_weight_and_bias(conv, own, weight[1])


def _fit_linear(linear: nn.Linear, own: Mapping[str, Shape]) -> None:
    weight = own.get("weight")  # [out, in]
    if weight is None or not _is_narrower(weight, tuple(linear.weight.shape)):
        return
    _give_weight_and_bias(linear, own, weight[0])


def _fit_recurrent(module: nn.Module, own: Mapping[str, Shape]) -> None:
    """Fewer columns in the weights of each direction's inputs; what it keeps of one step for the next stays."""
    for name, weight in list(module.named_parameters(recurse=False)):
        shape, full = own.get(name), tuple(weight.shape)
        if name in INPUT_WEIGHTS and shape is not None and _is_narrower(shape, full) and shape[0] == full[0]:
            # Set as an attribute: the module has a list of its parameters.
            setattr(module, name, nn.Parameter(weight.new_empty(shape), weight.requires_grad))
    count_channels(module)


def _give_weight_and_bias(layer: nn.Module, own: Mapping[str, Shape], outputs: int) -> None:
    _fit_entries(layer, {"weight": own["weight"]})
    if "bias" not in own:
        layer.register_parameter("bias", None)
    elif own["bias"] == (outputs,) and (layer.bias is None or tuple(layer.bias.shape) != own["bias"]):
        layer.register_parameter("bias", nn.Parameter(layer.weight.new_empty(own["bias"])))
    count_channels(layer)


def _fit_norm(norm: _NormBase, own: Mapping[str, Shape]) -> None:
    """[num_features] for each of weight, bias, running_mean, running_var that the batch norm has."""
    features = {shape for shape in own.values() if shape}  # without num_batches_tracked
    if len(features) == 1 and _is_narrower(next(iter(features)), (norm.num_features,)):
        for name in ("weight", "bias"):  # a diagonal compactor was folded into a norm without them
            if getattr(norm, name) is None and name in own:
                norm.register_parameter(name, nn.Parameter(norm.running_mean.new_empty(own[name])))
                norm.affine = True
        _fit_entries(norm, own)
        count_channels(norm)


def _has_whole_groups(norm: nn.GroupNorm, own: Mapping[str, Shape]) -> bool:
    """Whether the file has some of the groups, all whole; a single one can't get any smaller."""
    each = norm.num_channels // norm.num_groups
    return norm.num_groups > 1 and all(len(shape) == 1 and shape[0] % each == 0 for shape in own.values())


def _fit_entries(module: nn.Module, own: Mapping[str, Shape]) -> None:
    """The module's own parameters and buffers in the file's shapes, where these aren't larger."""
    for entries in (module._parameters, module._buffers):
        for name, tensor in entries.items():
            shape = own.get(name)
            if tensor is None or shape is None or shape == tuple(tensor.shape):
                continue
            if _is_narrower(shape, tuple(tensor.shape)):
                empty = torch.empty(shape, dtype=tensor.dtype, device=tensor.device)
                entries[name] = nn.Parameter(empty, tensor.requires_grad) if name in module._parameters else empty


def _is_narrower(shape: Shape, full: Shape) -> bool:
    return len(shape) == len(full) and all(0 < size <= most for size, most in zip(shape, full, strict=True))


def _is_layer(module: nn.Module) -> bool:
    """Whether it is one of torch's layers, whose options would have to change with its parameters' shapes."""
    homes = (base.__module__ for base in type(module).__mro__)
    return any(home.startswith(_OWN_LAYERS) and home not in _NOT_LAYERS for home in homes)
