"""All figures of one model, for run.py: what it is, what of it can go, what tracing takes, and its proof (proof.py)."""

from __future__ import annotations

import logging
import math
import re
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from benchmarks.coverage.figures import bars
from benchmarks.coverage.network import Shapes, inputs_of
from benchmarks.coverage.networks import family_of, network
from benchmarks.coverage.proof import prove, put_compactors, said
from rr.conversion import rehearse
from rr.errors import InputError
from rr.graph import ChannelGraph, Inputs
from rr.graph.operations import operation

logger = logging.getLogger(__name__)

ATTENTION = frozenset(
    ["scaled_dot_product_attention", "_native_multi_head_attention", "_transformer_encoder_layer_fwd"]
)
BYTES_EACH = 16  # of memory at worst, for each parameter, compactors' included: float32, and a copy in float64
PRODUCTS = frozenset(["matmul", "bmm", "baddbmm", "einsum"])


def examine(name: str, most_parameters: int, most_bytes: float = math.inf) -> dict[str, Any]:
    """All figures of one model, and the bars it passes; what goes wrong is a figure as well.

    Args:
        name: of a network in the lists (`benchmarks.coverage.networks`), or one that `base_model.build_any` takes.
        most_parameters: models with more are only traced.
        most_bytes: a model whose proof takes more memory gives {"postponed": bytes} and nothing else.
    """
    began = time.perf_counter()
    figures: dict[str, Any] = {"family": family_of(name)}
    torch.manual_seed(0)
    try:
        chosen = network(name)
        model = chosen.build()
        figures["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        first, second = fitting_sizes(randomised(model).eval(), chosen.sizes)
        examples = inputs_of(first, batch=1)
        graph = trace(model, examples, figures)
        if figures["parameters"] > most_parameters:
            figures["not_run"] = "only traced: too large for this machine's memory in float64"
        else:
            graph = rehearsed(model, graph, examples, figures)
            put_compactors(model, graph)
            needed = BYTES_EACH * sum(parameter.numel() for parameter in model.parameters())
            if needed > most_bytes:
                return {"postponed": needed}
            prove(model, graph, examples, second, chosen.loss, figures)
    except Exception as error:  # the benchmark goes on: it is there to find this
        figures["failed"] = said(error)
    return {**figures, "bars": bars(figures), "seconds": time.perf_counter() - began}


def trace_cost(name: str) -> dict[str, Any]:
    """What tracing one model takes, and nothing else of `examine`."""
    torch.manual_seed(0)
    chosen = network(name)
    model = chosen.build()
    first, _ = fitting_sizes(randomised(model).eval(), chosen.sizes)
    figures: dict[str, Any] = {}
    trace(model, inputs_of(first, batch=1), figures)
    return {key: figures[key] for key in ("trace_seconds", "trace_cpu_seconds")}


@torch.no_grad()
def randomised(model: nn.Module) -> nn.Module:
    """Give the model random statistics, scales and shifts, negative ones among them, so that none hides an error.

    (With a layer scale of 1e-6, or a gain or head of 0, the outputs would show next to nothing of the layers before.)
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.5, 2)
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.min() != parameter.max():
                continue
            if name == "weight" and isinstance(module, nn.Linear | _ConvNd):
                parameter.normal_(0, 0.02)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.5 if isinstance(module, _BatchNorm) else 0.1)
            else:
                signs = torch.where(torch.rand_like(parameter) < 0.3, -1, 1) if parameter.numel() > 1 else 1
                parameter.uniform_(0.5, 1.5).mul_(signs)
    return model


@torch.no_grad()
def fitting_sizes(model: nn.Module, sizes: Sequence[tuple[Shapes, Shapes]]) -> tuple[Shapes, Shapes]:
    """The first pair of shapes that the network takes; the first that it takes twice where it takes only one.

    Raises:
        InputError: if it takes none.
    """
    for pair in sizes:
        try:
            for shapes in pair:
                model(*(torch.zeros(1, *shape) for shape in shapes))
            return pair
        except Exception as error:  # whatever a network raises for inputs that it doesn't take
            logger.info("takes no inputs of %s: %s", pair, said(error))
            why = said(error)
    raise InputError(
        f"takes inputs of none of the {len(sizes)} pairs of sizes that are tried; the last failed with {why}"
    )


def trace(model: nn.Module, examples: Inputs, figures: dict[str, Any]) -> ChannelGraph:
    """The channel graph of the model; adds to `figures` what it says about the model."""
    ChannelGraph(
        nn.Sequential(nn.Conv2d(3, 1, 1)), torch.zeros(1, 3, 8, 8)
    )  # what the first export of a process loads isn't counted
    began, began_cpu = time.perf_counter(), time.process_time()
    graph = ChannelGraph(model, examples)
    figures |= {
        "trace_seconds": time.perf_counter() - began,
        "trace_cpu_seconds": time.process_time() - began_cpu,  # of all threads: less than the above on a busy machine
        "layers": len(graph.layers),
    }
    figures |= {
        "kind": "transformer" if has_attention(graph) else "cnn",
        "macs": graph.macs(np.ones(graph.num_units, dtype=bool)),
        "units": graph.num_units,
    }
    figures |= what_can_go(graph, model)
    return graph


def rehearsed(model: nn.Module, graph: ChannelGraph, examples: Inputs, figures: dict[str, Any]) -> ChannelGraph:
    """Rehearse, as every run does before it trains: what fails with fewer channels can't go either; adds figures."""
    began = time.perf_counter()
    if graph.prunable.any():
        graph = rehearse(model, graph, examples, graph.prunable)
    figures |= {"rehearsal_seconds": time.perf_counter() - began, **what_can_go(graph, model)}
    return graph


def what_can_go(graph: ChannelGraph, model: nn.Module) -> dict[str, Any]:
    """Units and share of the MACs that can go, and why the rest stays."""
    return {
        "prunable_units": int(graph.prunable.sum()),
        "share_of_macs_that_can_go": graph.removable_share(),
        "stays": causes(graph, model),
    }


def has_attention(graph: ChannelGraph) -> bool:
    """Whether matrices of activations are multiplied with each other, which tells attention from a CNN's operations.

    (A softmax alone tells nothing: CNNs weight their branches with it.)
    """

    def activations(node: fx.Node) -> int:
        return sum(graph.trace.parameter(source) is None for source in node.all_input_nodes)

    calls = [node for node in graph.trace.nodes if node.op == "call_function"]
    return any(
        operation(node) in ATTENTION or (operation(node) in PRODUCTS and activations(node) > 1) for node in calls
    )


def causes(graph: ChannelGraph, model: nn.Module) -> list[dict[str, Any]]:
    """Why units stay: each cause without names of layers, how many units it holds, and the first reason as it is."""
    names = {name for name, _ in model.named_modules()} - {""}

    def general(reason: str) -> str:
        reason = re.sub(r" \(.*\)(?=: take sizes)", "", reason)  # the error that a forward ended in, which has numbers
        words = ((word.rstrip(",;"), word) for word in reason.split(" "))
        return " ".join("a layer" + word[len(bare) :] if bare in names else word for bare, word in words)

    examples: dict[str, str] = {}
    for reason in graph.reasons.values():
        examples.setdefault(general(reason), reason)
    counts = Counter(general(reason) for reason in graph.reasons.values())
    return [{"cause": cause, "units": units, "example": examples[cause]} for cause, units in counts.most_common()]
