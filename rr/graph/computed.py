"""Layers whose weight is a function of parameters alone: weight norm, weight standardisation, equalised learning rates.

What such a layer computes is what a plain convolution or linear layer with that weight does, so the graph is built of a
copy of the model that has those, and a conversion puts them into the narrow network. Which layers these are is read
from the trace: their module runs a single operation on activations, and all else in it is made of its parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from rr.compactors import hooks_of_users, remove_compactors
from rr.copies import copy_of
from rr.graph.operations import OperationKind, is_in_place, kind_of
from rr.graph.tensors import bare_in_float64, in_float64, named_tensors
from rr.graph.trace import Trace, argument, inside_modules, readers_of, running_module, shape_of
from rr.weights.plain_layers import PlainLayer

_OPERATIONS = (OperationKind.CONVOLUTION, OperationKind.TRANSPOSED, OperationKind.LINEAR)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_OPTIONS = {  # where the operation has what
    OperationKind.CONVOLUTION: {"stride": (3, 1), "padding": (4, 0), "dilation": (5, 1)},
    OperationKind.TRANSPOSED: {"stride": (3, 1), "padding": (4, 0), "output_padding": (5, 0), "dilation": (7, 1)},
}

ParameterValue = Callable[[str], Tensor]  # a parameter's or buffer's name -> its values in float64


@dataclass(frozen=True)
class ComputedLayer:
    """A layer whose weight its module computes.

    Attributes:
        plain: the plain layer that does the same.
        weight: the weight's place in the trace.
        bias: the bias's, None where there is none.
        input_shape: of an activation that it gets.
        parameters: placeholder -> the name in the model, for the values that weight and bias are made of.
    """

    plain: PlainLayer
    weight: fx.Node
    bias: fx.Node | None
    input_shape: torch.Size
    parameters: Mapping[str, str]

    @torch.no_grad()
    def values(self, value_of: ParameterValue) -> tuple[Tensor, Tensor | None]:
        """Weight and bias in float64, as eval mode computes them from parameters.

        Args:
            value_of: the parameters' and buffers' values.
        """
        known: dict[fx.Node, object] = {}

        def value(node: fx.Node) -> object:
            if node in known:
                return known[node]
            if node.op == "placeholder":
                known[node] = value_of(self.parameters[node.name])
            else:
                args, kwargs = fx.map_arg((node.args, node.kwargs), value)
                args, kwargs = torch.utils._pytree.tree_map_only(torch.dtype, _exact_type, (args, kwargs))
                known[node] = node.target(*args, **kwargs)
            return known[node]

        bias = None if self.bias is None else value(self.bias).clone()
        return value(self.weight).clone(memory_format=torch.contiguous_format), bias


def computed_layers(trace: Trace, model: nn.Module) -> dict[str, ComputedLayer]:
    """The layers of a traced model that compute their weight, by name.

    Args:
        trace: the operations.
        model: the model, without compactors.
    """
    fixed = _of_parameters_alone(trace)
    inside, calls = inside_modules(trace)
    modules, readers = dict(model.named_modules()), readers_of(trace, model)
    found = {}
    for name in dict.fromkeys(running_module(node) for node in trace.nodes if kind_of(node) in _OPERATIONS):
        layer = _computed(modules[name], name, inside[name], len(calls[name]), fixed, trace) if name else None
        if layer is None or not _is_alone(modules[name], name, set(inside[name]), readers, fixed):
            continue
        if _computes_the_same(modules[name], name, layer):
            found[name] = layer
    return found


def with_plain_layers(model: nn.Module, computed: Mapping[str, ComputedLayer]) -> nn.Module:
    """A copy of the model, without compactors, that has plain layers in their place; the model itself without any."""
    if not computed:
        return model
    plain = plain_layers(model, computed)
    modules = dict(model.named_modules())
    changed = copy_of(model, {id(modules[name]): layer for name, layer in plain.items()})
    remove_compactors(changed)
    anchor = next(model.parameters())
    for name, layer in computed.items():
        replaced = changed.get_submodule(name).to(anchor.device, anchor.dtype)
        vars(replaced).update(without_weight_hooks(modules[name], layer.input_shape, hooks_of_users(modules[name])))
    return changed


def plain_layers(model: nn.Module, computed: Mapping[str, ComputedLayer]) -> dict[str, nn.Module]:
    """The plain layers, by the names of those that compute their weights now: in float64, on the CPU."""
    tensors = named_tensors(model)
    layers = {}
    for name, layer in computed.items():
        weight, bias = layer.values(lambda parameter: in_float64(tensors[parameter]))
        trains = any(tensors[parameter].requires_grad for parameter in layer.parameters.values())
        weight.requires_grad_(trains)
        layers[name] = layer.plain.build(weight, None if bias is None else bias.requires_grad_(trains))
    return layers


def without_weight_hooks(module: nn.Module, input_shape: Sequence[int], hooks: dict[str, dict]) -> dict[str, dict]:
    """A layer's hooks but those before its forward that set its weight, which a plain layer has no use for.

    Args:
        module: the layer.
        input_shape: of an activation that it gets.
        hooks: its hooks, by the attribute that holds them.
    """
    before = hooks.get("_forward_pre_hooks", {})
    others = {key: hook for key, hook in before.items() if not _sets_weight(module, hook, input_shape)}
    kept = {**hooks, "_forward_pre_hooks": type(before)(others)}
    return kept if any(kept.values()) else {}


def _sets_weight(module: nn.Module, hook: Callable[..., object], input_shape: Sequence[int]) -> bool:
    alone = copy_of(module).eval()  # a hook may change what the module holds (spectral norm's vectors, in training)
    before = {**vars(alone), **alone._parameters, **alone._buffers}
    anchor = next(module.parameters())
    try:
        with torch.no_grad():
            hook(alone, (anchor.new_zeros(tuple(input_shape)),))
    except Exception:  # it wants other inputs: not one that only sets a weight
        return False
    after = {**vars(alone), **alone._parameters, **alone._buffers}
    return any(isinstance(value, Tensor) and value is not before.get(name) for name, value in after.items())


def _of_parameters_alone(trace: Trace) -> set[fx.Node]:
    """The operations whose outputs are made of nothing but parameters, buffers and written numbers."""
    fixed = {node for node in trace.nodes if node.op == "placeholder" and node.name in trace.parameters}
    for node in trace.nodes:
        if node.op == "call_function" and all(source in fixed for source in node.all_input_nodes):
            fixed.add(node)
    return fixed


def _computed(
    module: nn.Module, name: str, inside: Sequence[fx.Node], calls: int, fixed: set[fx.Node], trace: Trace
) -> ComputedLayer | None:
    """What a module computes, where it is a layer of this kind; None for any other."""
    others = [node for node in inside if node not in fixed and "val" in node.meta]
    ends = [node for node in others if kind_of(node) in _OPERATIONS]
    if len(ends) != len(others) or len(ends) != calls or any(is_in_place(node) for node in inside):
        return None
    first = ends[0]
    weight, bias = argument(first, 1, "weight"), argument(first, 2, "bias")
    if first.args[0] in fixed or weight not in fixed or (bias is not None and bias not in fixed):
        return None
    plain = _plain_layer(first)
    if any(_plain_layer(end) != plain for end in ends[1:]) or any(end.args[0] in fixed for end in ends):
        return None
    own = trace.parameter(weight) == f"{name}.weight" and (bias is None or trace.parameter(bias) == f"{name}.bias")
    if own and isinstance(module, (nn.Linear, _ConvNd)):
        return None  # a layer like any other
    sources = {trace.parameters[node.name] for node in _placeholders([weight, bias])}
    if any(not source.startswith(f"{name}.") for source in sources):
        return None  # of another module, too
    parameters = {placeholder: own for placeholder, own in trace.parameters.items() if own in sources}
    return ComputedLayer(plain, weight, bias, shape_of(first.args[0]), parameters)


def _plain_layer(node: fx.Node) -> PlainLayer:
    kind = kind_of(node)
    if kind is OperationKind.LINEAR:
        return PlainLayer(nn.Linear)
    dimensions = len(shape_of(argument(node, 1, "weight"))) - 2
    options = {name: argument(node, place, name, usual) for name, (place, usual) in _OPTIONS[kind].items()}
    if isinstance(options["padding"], str):
        options["padding"] = -1 if options["padding"] == "same" else 0
    each = {
        name: (value,) * dimensions if isinstance(value, int) else tuple(value) * (dimensions // len(value))
        for name, value in {"output_padding": 0, **options}.items()
    }
    classes = _TRANSPOSED if kind is OperationKind.TRANSPOSED else _CONVOLUTIONS
    return PlainLayer(classes[dimensions - 1], argument(node, 6, "groups", 1), **each)


def _placeholders(nodes: Iterable[fx.Node | None]) -> set[fx.Node]:
    waiting, found = [node for node in nodes if node is not None], set()
    while waiting:
        node = waiting.pop()
        if node.op == "placeholder":
            found.add(node)
        waiting.extend(node.all_input_nodes)
    return found


def _is_alone(
    module: nn.Module,
    name: str,
    inside: set[fx.Node],
    readers: Mapping[str, Sequence[fx.Node]],
    fixed: set[fx.Node],
) -> bool:
    """Whether nothing outside of the module reads its parameters or what it makes of them, nor it theirs."""
    own = {f"{name}.{tensor}" for tensor in named_tensors(module)}
    reads = {tensor for tensor, nodes in readers.items() if any(node in inside for node in nodes)}
    if not reads <= own or any(node not in inside for tensor in own for node in readers.get(tensor, ())):
        return False
    return all(user in inside for node in inside & fixed for user in node.users)


@torch.no_grad()
def _computes_the_same(module: nn.Module, name: str, layer: ComputedLayer) -> bool:
    """Whether the module's own forward gives what the plain layer does, in float64."""
    alone = bare_in_float64(module)
    tensors = named_tensors(alone)
    weight, bias = layer.values(lambda parameter: tensors[parameter.removeprefix(f"{name}.")])
    x = torch.randn(layer.input_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected, found = alone(x), layer.plain.build(weight, bias)(x)
    return isinstance(expected, Tensor) and bool(torch.allclose(expected, found, rtol=1e-9, atol=1e-9))


def _exact_type(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype.is_floating_point else dtype
