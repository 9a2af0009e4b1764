"""What is to be pruned of a model, known before any training: its graph, what can go of it, and where compactors go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from rr.compactors import find_compactors
from rr.config import ResRepConfig
from rr.conversion import rehearse, rehearse_vanishing
from rr.errors import InputError
from rr.graph import ChannelGraph, Inputs, LiveModel
from rr.graph.widths import floors
from rr.runtime import compile_anew, stages


@dataclass(frozen=True)
class Plan:
    """What is to be pruned.

    Attributes:
        graph: of the model, with what a rehearsal found unprunable.
        selected: [num_units] of bool, the units to prune.
        left_out: those that the settings leave out -> why.
        least: [groups], units that each group keeps at least.
    """

    graph: ChannelGraph
    selected: np.ndarray
    left_out: Mapping[int, str]
    least: np.ndarray

    def put_compactors(self, model: nn.Module) -> LiveModel:
        """Put the compactors into the model, in place; a model that has just these keeps them as they are.

        Raises:
            InputError: if it has compactors at other places.
        """
        hosts = {site.host for site in self.graph.sites_of(self.selected)}
        present = find_compactors(model)
        if present and set(present) != hosts:
            raise InputError("the model has compactors at other places: build the pruner on a model without any")
        if not present:
            self.graph.insert_compactors(model, self.selected)
        compile_anew("the model has its compactors")
        return LiveModel(model, self.graph)


def check_arguments(model: object, config: object) -> None:
    """Check what a pruner is given, before anything is looked at, and where it is built.

    Raises:
        InputError: if it isn't a bare model of Python modules whose parameters have values, or no config; or if what is
            made here couldn't be trained, or not on the CPU.
    """
    if not isinstance(model, nn.Module) or next(model.parameters(), None) is None:
        raise InputError(f"the model must be an nn.Module with parameters, not {type(model).__name__}")
    if isinstance(model, DataParallel | DistributedDataParallel):
        raise InputError("the model is wrapped already: build the pruner on the bare model, then wrap that")
    scripted = [name for name, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)]
    if scripted:
        raise InputError(
            f"{scripted[0] or 'the model'} is TorchScript, which can't be traced or narrowed: build the pruner on the "
            "Python module, and script the converted network"
        )
    if any(parameter.is_meta for parameter in model.parameters()):
        raise InputError("the model's parameters have no values (device 'meta'): load its weights before the pruner")
    if torch.is_inference_mode_enabled():
        raise InputError("nothing that is made in torch.inference_mode can be trained: call this outside of it")
    if (device := torch.empty(0).device.type) != "cpu":
        raise InputError(
            f"new tensors are on {device!r} at present, but what is worked out here is on the "
            "CPU: call this, and convert, under `with torch.device('cpu'):`; the model may be where it is"
        )
    if not isinstance(config, ResRepConfig | None):
        raise InputError(
            f"config must be what fast_config(...) or paper_config(...) returns, not {type(config).__name__}"
        )


def steps_of(state: object) -> int:
    """The steps in a pruner's state dict.

    Raises:
        InputError: if it isn't one.
    """
    if not isinstance(state, Mapping) or "steps" not in state:
        raise InputError("this isn't the state of a pruner: give what pruner.state_dict() returned")
    return int(state["steps"])


def plan(model: nn.Module, example_inputs: Inputs, config: ResRepConfig, graph: ChannelGraph | None = None) -> Plan:
    """Trace the model, choose what is to be pruned, and rehearse a conversion; the model stays as it is.

    Args:
        model: the network, with compactors or without.
        example_inputs: what it is called with.
        config: the settings.
        graph: of the model, to use in place of tracing it now.

    Raises:
        InputError: if the model can't be traced, nothing is prunable, or the given graph has other compactors than the
            config asks for.
    """
    chosen = config.selection
    with stages("tracing the network", "rehearsing a conversion") as over:
        graph = _with_compactors_of(config, graph, model, example_inputs)
        choice = chosen.layers, chosen.include, chosen.exclude
        selected, left_out = graph.select(*choice), graph.left_out(*choice)
        over()
        graph = rehearse(model, graph, example_inputs, selected, max(chosen.min_width, 1))
        selected = graph.prunable_of(selected)
        least = floors(graph.macs.group_sizes, chosen.min_width, chosen.min_width_share)
        if chosen.min_width == 0:
            least[rehearse_vanishing(model, graph, example_inputs, selected)] = 0
        over()
    return Plan(graph, selected, left_out, least)


def _with_compactors_of(
    config: ResRepConfig, graph: ChannelGraph | None, model: nn.Module, example_inputs: Inputs
) -> ChannelGraph:
    """The graph for the kind of compactors that the config asks for."""
    wanted = {"silence": config.narrowing.mode != "no", "diagonal": config.compactors == "diagonal"}
    if graph is None:
        return ChannelGraph(model, example_inputs, **wanted)
    if not all(getattr(graph, name) for name, on in wanted.items() if on):
        options = ", ".join(f"{name}=True" for name, on in wanted.items() if on)
        raise InputError(f"the graph has other compactors than the config asks for: build it with {options}")
    return graph
