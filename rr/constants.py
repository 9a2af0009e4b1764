"""What a dead channel becomes behind its compactors, and what that adds to the layers that read it.

A dead channel is exactly 0 behind its compactor, but a depthwise conv-BN-ReLU behind it makes it the constant
relu(beta - mean gamma / sqrt(var + eps)), which belongs into the next layer's bias. The traced network is run in
float64 with NaN wherever a value depends on the network's input, so every operation treats constants as it really does.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import fx, nn

from rr.flow import CASTS, PER_GROUP, PRODUCERS, has_rule, is_assertion, is_in_place, shape_of
from rr.proof import in_float64
from rr.trace import argument, named_tensors, operation

if TYPE_CHECKING:
    from rr.graph import ChannelGraph, Layer

UNKNOWN = float("nan")
OF_SIZE = frozenset(["sum", "softmax", "log_softmax"])  # of a constant they make another for each size of images


@dataclass
class _Findings:
    """bias: layer -> [out_channels], what its dead inputs add

    inexact: unit -> where its constant can't be folded; constant: unit -> where there is one that can
    """

    bias: dict[str, torch.Tensor] = field(default_factory=dict)
    inexact: dict[int, Inexact] = field(default_factory=dict)
    constant: dict[int, Inexact] = field(default_factory=dict)

    def mark(self, unit: int, node: fx.Node, reason: str) -> None:
        self.inexact.setdefault(unit, Inexact(node, reason))


@dataclass(frozen=True)
class Inexact:
    """node: the operation that would need to be without its constant; reason: why no bias can hold that"""

    node: fx.Node
    reason: str


def inexact_consumers(graph: ChannelGraph, model: nn.Module, *, silent: bool = False) -> dict[int, Inexact]:
    """Units whose dead channels could leave something that no bias can hold: the first found on each unit's way.

    silent: units that could leave anything at all, a constant for a bias too

    Decided for all values of the parameters at once: a probe gives every constant a value that no ReLU hides, and each
    its own: constants that can differ differ here, and none cancel each other by chance.
    """
    shapes = named_tensors(model)

    def probe(name: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))  # the same each time it is asked for
        value = 0.5 + torch.rand(shapes[name].shape, generator=generator, dtype=torch.float64)
        return -value if name.endswith("running_mean") else value

    findings = _run(graph, ~graph.prunable, probe)
    return {**findings.constant, **findings.inexact} if silent else findings.inexact


def dead_constants(graph: ChannelGraph, model: nn.Module, alive: np.ndarray) -> dict[str, torch.Tensor]:
    """What the dead channels add to each layer's output before its BN: layer name -> [out_channels] in float64.

    Layers that get nothing are left out. alive: [num_units] of bool; dead units must be prunable.
    """
    values = named_tensors(model)

    def value_of(name: str) -> torch.Tensor:
        return graph.at_full_width(name, in_float64(values[name]))

    findings = _run(graph, alive, value_of)
    assert not findings.inexact, findings.inexact  # such units are unprunable
    return findings.bias


def _run(graph: ChannelGraph, alive: np.ndarray, parameter: Callable[[str], torch.Tensor]) -> _Findings:
    layers = {node: layer for layer in graph.layers.values() for node in layer.nodes}
    sites = {node: site for site in graph.sites.values() for node in site.nodes}
    last_use = {source: node for node in graph.trace.nodes for source in node.all_input_nodes}
    findings = _Findings()
    values: dict[fx.Node, object] = {}

    def value_of(source: fx.Node) -> object:
        name = graph.trace.parameter(source)
        return values[source] if name is None else parameter(name)

    with torch.no_grad():
        for node in graph.trace.nodes:
            if node.op == "placeholder":
                if node.name not in graph.trace.parameters:  # an input, or a constant whose readers are unprunable
                    values[node] = _unknown(node)
                continue
            if node.op == "output" or is_assertion(node) or "val" not in node.meta:
                continue
            layer = layers.get(node.name)
            cuts = layer is not None and layer.kind in PER_GROUP and any(_padding(node))
            if cuts and layer.name not in graph.sites:  # a compactor of its own silences what it makes of a constant
                _check_border(layer, node, values[node.args[0]], alive, findings)
            if layer is not None and layer.kind in PRODUCERS:
                _read(layer, node, values[node.args[0]], alive, parameter, findings)
                values[node] = _unknown(node)
            elif node.name in sites or not has_rule(node):  # without a rule: nothing prunable passes
                values[node] = _unknown(node)
            else:
                values[node] = _execute(node, value_of)
                if is_in_place(node):  # later readers of the source see it too
                    values[node.args[0]] = values[node]
            if node.name in sites:
                dead = torch.from_numpy(~alive[sites[node.name].units])
                channel_dim = -1 if graph.layers[sites[node.name].layer].kind == "linear" else 1
                values[node] = _silence(values[node], dead, channel_dim)
            for source in node.all_input_nodes:
                if last_use[source] is node:
                    values.pop(source, None)
    return findings


def _read(
    layer: Layer,
    node: fx.Node,
    x: torch.Tensor,
    alive: np.ndarray,
    parameter: Callable[[str], torch.Tensor],
    findings: _Findings,
) -> None:
    """Add up what the dead columns of a layer receive."""
    dead = torch.from_numpy(np.flatnonzero(~alive[layer.in_units]))
    if not len(dead):
        return
    channel_dim = x.dim() - 1 if layer.kind == "linear" else 1
    received = x.transpose(0, channel_dim)[dead].flatten(1)  # [dead, positions]
    constant = received[:, 0]
    # A transposed convolution's pixels don't all meet the whole kernel.
    padded = layer.kind == "transposed" or (layer.kind == "conv" and any(_padding(node)))
    shared = len(layer.nodes) > 1  # one bias for calls that may differ in what they receive
    varies = received.isnan().any(1)  # [dead]
    # Some operations round differently in the last elements of a tensor, which no vector instruction takes.
    alike = torch.isclose(received, constant[:, None].expand_as(received), rtol=1e-12, atol=0.0)
    cut = ~alike.all(1) | ((constant != 0) & padded)
    differs = (constant != 0) & shared
    for place in torch.nonzero(varies | cut | differs).flatten().tolist():
        if varies[place]:
            reason = f"when dead, what it gives to {layer.name} still varies with the input or its size"
        elif cut[place]:
            reason = f"when dead, a constant that padding cuts at the border reaches {layer.name}"
        else:
            reason = f"when dead, a constant reaches {layer.name}, which is called more than once"
        findings.mark(int(layer.in_units[dead[place]]), node, reason)
    for place in torch.nonzero(constant).flatten().tolist():
        unit = int(layer.in_units[dead[place]])
        findings.constant.setdefault(unit, Inexact(node, f"when dead, a constant reaches {layer.name}"))
    if findings.inexact or not constant.any():
        return
    weight = parameter(f"{layer.name}.weight")
    if layer.kind != "linear":
        weight = weight.flatten(2).sum(2)  # a constant without padding meets every tap of the kernel
    findings.bias[layer.name] = weight[:, dead] @ constant


def _check_border(layer: Layer, node: fx.Node, x: torch.Tensor, alive: np.ndarray, findings: _Findings) -> None:
    """A constant other than 0 differs at the border behind a padded layer, if not in images of the examples' size."""
    cut = x.transpose(0, 1).flatten(1).nan_to_num(0.0).any(1)  # [channels]
    for channel in torch.nonzero(cut).flatten().tolist():
        unit = int(layer.in_units[channel])
        if not alive[unit]:
            findings.mark(unit, node, f"when dead, a constant that padding cuts at the border reaches {layer.name}")


def _padding(node: fx.Node) -> tuple[int, ...]:
    padding = argument(node, 4, "padding", 0)
    if isinstance(padding, str):
        return (0,) if padding == "valid" else (1,)
    return (padding,) if isinstance(padding, int) else tuple(padding)


def _execute(node: fx.Node, value_of: Callable[[fx.Node], object]) -> object:
    args, kwargs = fx.map_arg((node.args, node.kwargs), value_of)
    if operation(node).startswith("avg_pool") and any(np.atleast_1d(argument(node, 3, "padding", 0))):
        args = (torch.where(args[0] == 0, args[0], UNKNOWN), *args[1:])  # it averages the padding in: as for a layer
    if operation(node) in ("view", "_unsafe_view"):
        return args[0].reshape(args[1])
    if operation(node) in CASTS or operation(node).endswith("dropout"):
        return args[0]  # stays in float64, and whole
    if is_in_place(node):
        args = (args[0].clone(), *args[1:])
    result = node.target(*args, **kwargs)
    if operation(node) in OF_SIZE:
        result = torch.where(result == 0, result, UNKNOWN)
    if operation(node) == "mul":  # whatever the other is: a gate that varies lets nothing of a dead channel through
        zero = torch.zeros((), dtype=torch.float64)
        result = torch.where((torch.as_tensor(args[0]) == 0) | (torch.as_tensor(args[1]) == 0), zero, result)
    return result


def _unknown(node: fx.Node) -> object:
    value = node.meta["val"]
    if isinstance(value, (list, tuple)):
        return [torch.full(part.shape, UNKNOWN, dtype=torch.float64) for part in value]
    return torch.full((), UNKNOWN, dtype=torch.float64).expand(shape_of(node))


def _silence(x: torch.Tensor, dead: torch.Tensor, channel_dim: int) -> torch.Tensor:
    view = [1] * x.dim()
    view[channel_dim] = len(dead)
    return torch.where(dead.view(view), torch.zeros((), dtype=x.dtype), x)
