"""What a dead channel becomes behind its compactors, and what that adds to the layers that read it.

A dead channel is exactly 0 behind its compactor, but a depthwise conv-BN-ReLU behind it makes it the constant
relu(beta - mean gamma / sqrt(var + eps)), which belongs into the next layer's bias. The traced network is run in
float64 with NaN wherever a value depends on the network's input, so every operation treats constants as it really does.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, fx, nn

from rr.graph.execution import execute, is_unknown, unknown
from rr.graph.layers import Layer, LayerKind, Site, Sum
from rr.graph.operations import chosen_along, has_rule, is_assertion, is_in_place, operation
from rr.graph.tensors import named_tensors
from rr.graph.trace import Trace, argument, has_sizes, is_number, running_module

_TURNING = ("neg", "rsub", "sub", "subtract", "hardshrink", "threshold")  # behind these a ReLU hides other constants

ParameterValue = Callable[[str], Tensor]  # a parameter's or buffer's name -> its values in float64, at full width


class Traced(Protocol):
    """What is needed of a graph here; see `ChannelGraph`."""

    trace: Trace
    layers: Mapping[str, Layer]
    sites: Mapping[str, Site]
    sums: Sequence[Sum]


@dataclass(frozen=True)
class Inexact:
    """Where a dead unit's constant can't be folded.

    Attributes:
        node: the operation that would need to be without it; None where that is an operation of another trace alone.
        reason: why no bias can hold it.
    """

    node: fx.Node | None
    reason: str


class UnfoldableError(Exception):
    """Dead units leave what no bias can hold.

    Attributes:
        units: which.
    """

    def __init__(self, found: Mapping[int, Inexact]) -> None:
        super().__init__(next(iter(found.values())).reason)
        self.units = list(found)


def inexact_consumers(
    graph: Traced, model: nn.Module, prunable: np.ndarray, *, silent: bool = False
) -> dict[int, Inexact]:
    """Units whose dead channels could leave something that no bias can hold: the first found on each unit's way.

    Decided for all values of the parameters at once: a probe gives every constant a value of its own, which no ReLU
    hides, so constants that can differ do differ, and none cancel each other by chance.

    Args:
        graph: the traced layers, and the compactors' places as they are so far.
        model: for the shapes of its parameters.
        prunable: [num_units] of bool, the units that may die.
        silent: whether to find units that could leave anything at all, even a constant that a bias can hold.
    """
    findings = probed(graph, model, prunable)
    return findings.anything if silent else findings.inexact


def probed(graph: Traced, model: nn.Module, prunable: np.ndarray) -> Findings:
    """What dead channels leave for the values of a probe; the arguments are those of `inexact_consumers`."""
    first = _ConstantRun(graph, ~prunable, _probe_of(model, 1)).run()
    if not any(operation(node) in _TURNING for node in graph.trace.nodes):
        return first
    second = _ConstantRun(graph, ~prunable, _probe_of(model, -1)).run()
    inexact, constant = {**second.inexact, **first.inexact}, {**second.constant, **first.constant}
    return replace(first, inexact=inexact, constant=constant)


def dependent(here: Traced, there: Traced, first: Findings, second: Findings, where: str) -> dict[int, Inexact]:
    """Units whose dead channels leave another constant elsewhere, at another size of the input: no bias can hold both.

    Args:
        here: the traced layers and the compactors' places.
        there: the same of the network traced in another way.
        first: what a probe found here, nothing of it inexact.
        second: what it found there.
        where: which way that is, for reasons.
    """
    nodes = {node.name: node for node in here.trace.nodes}
    layer_at = {node: layer.name for layer in there.layers.values() for node in layer.nodes}
    found = {}
    for unit, inexact in second.inexact.items():
        name, reason = layer_at.get(inexact.node.name), f"{inexact.reason} ({where})"
        if name is None:  # what adds channels up
            found[unit] = Inexact(None, reason)
        elif name in here.layers:
            found[unit] = Inexact(nodes[here.layers[name].nodes[0]], reason)
    for name in here.layers.keys() & there.layers.keys():
        constants, others = (run.received.get(name, {}) for run in (first, second))
        for column in sorted(constants.keys() | others.keys()):
            if not math.isclose(constants.get(column, 0.0), others.get(column, 0.0), rel_tol=1e-9):
                reason = f"when dead, what it gives to {name} is another constant {where}"
                unit = int(here.layers[name].in_units[column])
                found.setdefault(unit, Inexact(nodes[here.layers[name].nodes[0]], reason))
    return found


def _probe_of(model: nn.Module, sign: int) -> ParameterValue:
    """Values for all parameters that show what can be: none cancel each other, no ReLU hides constants of this sign.

    (`relu(-x)` hides what `relu(x)` doesn't.)
    """
    shapes = named_tensors(model)

    def probe(name: str) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))  # the same each time it is asked for
        value = 0.5 + torch.rand(shapes[name].shape, generator=generator, dtype=torch.float64)
        if name.endswith("running_mean"):
            return -sign * value
        return sign * value if name.endswith("bias") else value

    return probe


def dead_constants(graph: Traced, alive: np.ndarray, value_of: ParameterValue) -> dict[str, Tensor]:
    """What the dead channels add to each layer's output before its BN: layer name -> [out_channels] in float64.

    Layers that get nothing are left out.

    Raises:
        UnfoldableError: if a dead unit leaves what no bias can hold; what a probe shows is unprunable, but the values
            at the end may show more.

    Args:
        graph: the traced layers and the compactors' places.
        alive: [num_units] of bool; dead units must be prunable.
        value_of: the model's parameters.
    """
    findings = _ConstantRun(graph, alive, value_of).run()
    if findings.inexact:
        raise UnfoldableError(findings.inexact)
    return findings.bias


@dataclass
class Findings:
    """What a run found.

    Attributes:
        bias: layer -> [out_channels], what its dead inputs add.
        inexact: unit -> where its constant can't be folded.
        constant: unit -> where it leaves a constant that can.
        received: layer -> dead column -> the constant that it receives, where that isn't 0.
    """

    bias: dict[str, Tensor] = field(default_factory=dict)
    inexact: dict[int, Inexact] = field(default_factory=dict)
    constant: dict[int, Inexact] = field(default_factory=dict)
    received: dict[str, dict[int, float]] = field(default_factory=dict)

    @property
    def anything(self) -> dict[int, Inexact]:
        """Unit -> where it leaves anything at all."""
        return {**self.constant, **self.inexact}


class _ConstantRun:
    """One run of the traced operations, with constants where there are any and NaN elsewhere."""

    def __init__(self, graph: Traced, alive: np.ndarray, parameter: ParameterValue) -> None:
        self._trace = graph.trace
        self._layers = {node: layer for layer in graph.layers.values() for node in layer.nodes}
        self._sites = {node: site for site in graph.sites.values() for node in site.nodes}
        self._channel_dims = {node: graph.layers[site.layer].channel_dim for node, site in self._sites.items()}
        self._with_site = set(graph.sites)
        self._sums = graph.sums
        self._alive, self._parameter = alive, parameter
        self._values: dict[fx.Node, object] = {}
        self._found = Findings()

    @torch.no_grad()
    def run(self) -> Findings:
        last_use = {source: node for node in self._trace.nodes for source in node.all_input_nodes}
        for node in self._trace.nodes:
            if node.op == "placeholder":
                if node.name not in self._trace.parameters:  # an input, or a constant whose readers are unprunable
                    self._values[node] = unknown(node)
                continue
            if node.op == "output" or is_assertion(node) or "val" not in node.meta:
                continue
            self._values[node] = self._silenced(node, self._result(node))
            for source in node.all_input_nodes:
                if last_use[source] is node:
                    self._values.pop(source, None)
        return self._found

    def _result(self, node: fx.Node) -> object:
        """What the operation makes of constants; notes what the layers that read them receive."""
        layer = self._layers.get(node.name)
        cuts = layer is not None and layer.kind.is_by_group and any(_padding(node))
        if cuts and layer.name not in self._with_site:  # a compactor of its own silences what it makes of a constant
            self._check_border(layer, node)
        for place in self._sums:
            if place.node == node.name:
                self._add_up(place, node)
        if layer is not None and layer.kind.reads_all:
            if layer.kind not in (LayerKind.COLUMNS, LayerKind.ALIKE):  # what these read is added up
                self._read(layer, node)
            return unknown(node)
        if layer is not None and layer.kind is LayerKind.CHOICE:
            return self._value(node.args[0]).index_select(chosen_along(node)[0], torch.tensor(layer.places))
        if is_number(node):
            is_known = not any(is_unknown(self._value(source)) for source in node.all_input_nodes)
            return execute(node, self._value) if is_known else unknown(node)
        if node.name in self._sites or not (has_rule(node) and has_sizes(node)):  # nothing prunable passes
            return unknown(node)
        result = execute(node, self._value)
        if is_in_place(node):  # later readers of the source see it too
            self._values[node.args[0]] = result
        return result

    def _value(self, source: fx.Node) -> object:
        name = self._trace.parameter(source)
        return self._values[source] if name is None else self._parameter(name)

    def _silenced(self, node: fx.Node, value: object) -> object:
        """The value with zeros in the dead channels, where a compactor acts on it."""
        if node.name not in self._sites:
            return value
        dead = torch.from_numpy(~self._alive[self._sites[node.name].units])
        view = [1] * value.dim()
        view[self._channel_dims[node.name]] = len(dead)
        return torch.where(dead.view(view), torch.zeros((), dtype=value.dtype), value)

    def _read(self, layer: Layer, node: fx.Node) -> None:
        """Add up what the dead columns of a layer receive."""
        dead = torch.from_numpy(np.flatnonzero(~self._alive[layer.in_units]))
        if not len(dead):
            return
        x = self._values[node.args[0]]
        received = x.transpose(0, layer.channel_dim)[dead].flatten(1)  # [dead, positions]
        constant = received[:, 0]
        for place, reason in self._unfoldable(layer, node, received):
            self._found.inexact.setdefault(int(layer.in_units[dead[place]]), Inexact(node, reason))
        for place in torch.nonzero(constant).flatten().tolist():
            unit = int(layer.in_units[dead[place]])
            self._found.received.setdefault(layer.name, {})[int(dead[place])] = float(constant[place])
            self._found.constant.setdefault(unit, Inexact(node, f"when dead, a constant reaches {layer.name}"))
        if self._found.inexact or not constant.any():
            return
        weight = self._parameter(f"{layer.name}.weight")
        if layer.kind is not LayerKind.LINEAR:
            weight = weight.flatten(2).sum(2)  # a constant without padding meets every tap of the kernel
        self._found.bias[layer.name] = weight[:, dead] @ constant

    def _add_up(self, place: Sum, node: fx.Node) -> None:
        """Check that the dead channels among those that an operation adds up are 0."""
        value = next(self._value(source) for source in node.all_input_nodes if source.name == place.source)
        dead = torch.from_numpy(np.append(~self._alive, False))[place.channels]  # the last one: channels of no unit
        name = running_module(node) or "the model"
        reason = f"when dead, a constant reaches {operation(node)} in {name}, where none goes into a bias"
        for unit in place.channels[dead & (value != 0)].unique().tolist():
            self._found.inexact.setdefault(unit, Inexact(node, reason))

    def _unfoldable(self, layer: Layer, node: fx.Node, received: Tensor) -> list[tuple[int, str]]:
        """Which of the dead columns ([dead, positions]) get something that no bias can hold, and why."""
        constant = received[:, 0]
        # A transposed convolution's pixels don't all meet the whole kernel.
        padded = layer.kind is LayerKind.TRANSPOSED or (layer.kind is LayerKind.CONV and any(_padding(node)))
        shared = len(layer.nodes) > 1  # one bias for calls that may differ in what they receive
        varies = received.isnan().any(1)  # [dead]
        # Some operations round differently in the last elements of a tensor, which no vector instruction takes.
        alike = torch.isclose(received, constant[:, None].expand_as(received), rtol=1e-12, atol=0.0)
        is_cut = ~alike.all(1) | ((constant != 0) & padded)
        differs = (constant != 0) & shared
        found = []
        for place in torch.nonzero(varies | is_cut | differs).flatten().tolist():
            if varies[place]:
                reason = f"when dead, what it gives to {layer.name} still varies with the input or its size"
            elif is_cut[place]:
                reason = _at_the_border(layer)
            else:
                reason = f"when dead, a constant reaches {layer.name}, which is called more than once"
            found.append((place, reason))
        return found

    def _check_border(self, layer: Layer, node: fx.Node) -> None:
        """A constant other than 0 differs at the border behind a padded layer, even if not in images of this size."""
        is_cut = self._values[node.args[0]].transpose(0, 1).flatten(1).nan_to_num(0.0).any(1)  # [channels]
        for channel in torch.nonzero(is_cut).flatten().tolist():
            unit = int(layer.in_units[channel])
            if not self._alive[unit]:
                self._found.inexact.setdefault(unit, Inexact(node, _at_the_border(layer)))


def _at_the_border(layer: Layer) -> str:
    return f"when dead, a constant that padding cuts at the border reaches {layer.name}"


def _padding(node: fx.Node) -> tuple[int, ...]:
    padding = argument(node, 4, "padding", 0)
    if isinstance(padding, str):
        return (0,) if padding == "valid" else (1,)
    return (padding,) if isinstance(padding, int) else tuple(padding)
