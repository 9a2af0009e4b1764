"""The proof of one model: half of its channels dead, it is converted, compared in both precisions, and used."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.coverage.figures import HALF
from benchmarks.coverage.losses import Loss
from benchmarks.coverage.network import Shapes, inputs_of
from rr.compactors import find_compactors
from rr.conversion import ConversionReport, convert, fold
from rr.conversion.differences import difference_of
from rr.conversion.proof import exact_copy, outputs_of
from rr.graph import ChannelGraph, LiveModel
from rr.graph.costs import Target
from rr.graph.exporting import DataAsDetached
from rr.graph.tensors import ExampleInputs, named_tensors
from rr.selection.forgetting import select_forgotten

SAME_IN_FLOAT32 = 1e-5
Arguments = tuple[torch.Tensor, ...]


def put_compactors(model: nn.Module, graph: ChannelGraph) -> None:
    """Put compactors behind every layer with prunable channels, set to 0.5 I + noise."""
    graph.insert_compactors(model, graph.prunable)
    with torch.no_grad():
        for compactor in find_compactors(model).values():
            weight = compactor.pwc.weight
            weight.copy_(0.5 * weight + torch.randn_like(weight) * weight[0].numel() ** -0.5)


def prove(
    model: nn.Module, graph: ChannelGraph, examples: Arguments, other: Shapes, loss: Loss, figures: dict[str, Any]
) -> None:
    """Convert with a random half of the prunable units dead, compare, use; then convert with half of the MACs gone.

    Args:
        model: with compactors; it is changed.
        graph: its graph.
        examples: what it is called with, a batch of one.
        other: shapes of other arguments, for a batch of two.
        loss: on what the network returns in training mode.
        figures: what is known of the model, to which the findings are added.
    """
    trained = on_disk(model, copies=2)
    alive = random_half(graph)
    give(model, trained.pop())
    slim, report = converted(model, graph, alive, examples)
    figures |= {
        "macs_ratio": report.macs_ratio,
        "dropped": report.dropped,
        "float64_difference": report.float64_difference,
        "differences": differences(model, slim, graph, alive, examples, other),
    }
    checks = {"converts_again": converts_again, "trains": partial(trains, loss=loss), "exports": exports}
    for name, check in checks.items():
        try:
            figures[name] = check(copy.deepcopy(slim), examples)
        except Exception as error:  # a figure, like the others
            figures[name] = said(error)
    del slim
    give(model, trained.pop())
    slim, report = converted(model, graph, half_of_the_macs(graph), examples)
    counted = counted_macs(slim, examples)
    figures["half"] = {
        "macs_ratio": report.macs_ratio,
        "macs_ratio_counted": counted / figures["macs"],
        "float64_difference": report.float64_difference,
    }


def counted_macs(model: nn.Module, examples: Arguments) -> float:
    """MACs by torch's own counter: half of what it counts, which takes a multiplication and an addition as two.

    Args:
        model: in whatever mode; afterwards it is in eval mode, without gradients.
        examples: a batch of one.
    """
    model.eval().requires_grad_(False)  # the counter fails on views of parameters that need gradients
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # of which it counts nothing
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(*examples)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops() / 2


def converted(
    model: nn.Module, graph: ChannelGraph, alive: np.ndarray, examples: Arguments
) -> tuple[nn.Module, ConversionReport]:
    """The model converted after some units have died, and the report.

    Both networks end up on disk: for large ones, memory has room for little more than the conversion's copy in float64.

    Args:
        model: with compactors; the rows of dead units become zero.
        graph: its graph.
        alive: [num_units] of bool, the units that live.
        examples: what it is called with.
    """
    LiveModel(model, graph).zero_dead_rows(alive)
    give(model, *on_disk(model))
    slim, report = convert(LiveModel(model, graph), examples)
    give(slim, *on_disk(slim))
    return slim, report


def on_disk(model: nn.Module, copies: int = 1) -> list[dict[str, torch.Tensor]]:
    """Copies of the model's tensors, by name, in a file that is gone when they are.

    They are mapped into memory, which holds as much of them as it has room for. What is written to one copy changes
    neither the others nor the file.

    Args:
        model: the model.
        copies: how many.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tensors.pt"
        torch.save({name: tensor.detach() for name, tensor in named_tensors(model).items()}, path)
        return [torch.load(path, mmap=True) for _ in range(copies)]


def give(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Let the model have these tensors, by name, as its parameters and buffers."""
    for name, tensor in named_tensors(model).items():
        tensor.data = tensors[name]


def random_half(graph: ChannelGraph) -> np.ndarray:
    """Which units live, [num_units] of bool: each prunable one with probability 0.5, and at least one of each group."""
    alive = ~graph.prunable | (np.random.default_rng(0).random(graph.num_units) >= 0.5)
    for group in graph.groups:
        if not alive[group.units].any():
            alive[group.units[0]] = True
    return alive


def half_of_the_macs(graph: ChannelGraph) -> np.ndarray:
    """Which units live, [num_units] of bool, when masks take random prunable ones until half of the MACs is left."""
    candidates = np.flatnonzero(graph.prunable)
    alive = np.ones(graph.num_units, dtype=bool)
    forgotten, _ = select_forgotten(
        np.random.default_rng(1).random(len(candidates)),
        graph.macs.group_of_unit[candidates],
        graph.macs.group_sizes,
        Target("half", HALF, graph.macs, "MACs").met,
        min_width=1,
        limit=len(candidates),
    )
    alive[candidates[forgotten]] = False
    return alive


@torch.no_grad()
def differences(
    model: nn.Module,
    slim: nn.Module,
    graph: ChannelGraph,
    alive: np.ndarray,
    examples: Arguments,
    other: Shapes,
) -> dict[str, dict[str, float]]:
    """Largest difference of an output over that output's largest number, all against the unconverted model in float64.

    Args:
        model: the unconverted network in float32, with compactors.
        slim: the converted network in float32.
        graph: the model's graph.
        alive: [num_units] of bool, the units that `slim` has left.
        examples: a batch of one, which gives the first shape.
        other: shapes of the arguments of a batch of two.

    Returns:
        By shape of the first argument: `float64` (converted in float64), `float32` (`slim`), `float32_own` (the model
        itself).
    """
    batches = [ExampleInputs.of(inputs) for inputs in (tuple(map(torch.randn_like, examples)), inputs_of(other, 2))]
    exact_model = exact_copy(model)
    exact = [outputs_of(exact_model, batch, torch.float64) for batch in batches]
    del exact_model  # memory holds only one such copy of a large network
    exact_slim = fold(LiveModel(model, graph), alive)
    outputs = {
        "float64": [outputs_of(exact_slim, batch, torch.float64) for batch in batches],
        "float32": [outputs_of(slim, batch, torch.float32) for batch in batches],
        "float32_own": [outputs_of(model, batch, torch.float32) for batch in batches],
    }
    return {
        " x ".join(map(str, batch.tensors[0].shape)): {
            name: difference_of(exact[place], found[place], rounded=name != "float64")
            for name, found in outputs.items()
        }
        for place, batch in enumerate(batches)
    }


def converts_again(slim: nn.Module, examples: Arguments) -> bool:
    """Whether the converted network is traced again and comes out of a conversion as it went in."""
    again, report = convert(LiveModel(slim, ChannelGraph(slim, examples)), examples, prove=False)
    inputs = ExampleInputs.of(examples)
    before, after = (outputs_of(network, inputs, torch.float32) for network in (slim, again))
    return report.dropped == 0 and difference_of(before, after, rounded=True) <= SAME_IN_FLOAT32


def trains(slim: nn.Module, examples: Arguments, loss: Loss) -> bool:
    """Whether one step of SGD leaves every parameter finite."""
    slim.train()
    optimizer = torch.optim.SGD(slim.parameters(), lr=1e-4)
    two = [torch.cat([argument, argument.flip(-1)]) for argument in examples]
    loss(slim(*two)).backward()
    optimizer.step()
    return all(bool(parameter.isfinite().all()) for parameter in slim.parameters())


def exports(slim: nn.Module, examples: Arguments) -> bool:
    """Whether torch.export takes the converted network, with what `rr.export` does for it."""
    with DataAsDetached():
        torch.export.export(slim.eval(), examples, strict=False)
    return True


def said(error: Exception) -> str:
    """An error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
