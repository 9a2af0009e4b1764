"""The proof of one model: half of its channels dead, it is converted, compared in both precisions, and used."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.coverage.figures import HALF
from rr.compactors import find_compactors
from rr.conversion import ConversionReport, convert, fold
from rr.conversion.proof import exact_copy
from rr.graph import ChannelGraph, LiveModel
from rr.graph.costs import Target
from rr.graph.tensors import named_tensors
from rr.selection.forgetting import select_forgotten
from training import count_macs


def put_compactors(model: nn.Module, graph: ChannelGraph) -> None:
    """Put compactors behind every layer with prunable channels, set to 0.5 I + noise."""
    graph.insert_compactors(model, graph.prunable)
    with torch.no_grad():
        for compactor in find_compactors(model).values():
            weight = compactor.pwc.weight
            weight.copy_(0.5 * weight + torch.randn_like(weight) * weight[0].numel() ** -0.5)


def prove(
    model: nn.Module, graph: ChannelGraph, images: torch.Tensor, other_size: int, figures: dict[str, Any]
) -> None:
    """Convert with a random half of the prunable units dead, compare, use; then convert with half of the MACs gone.

    Args:
        model: with compactors; it is changed.
        graph: its graph.
        images: one image, [1, C, H, W].
        other_size: side of two more images, in pixels.
        figures: what is known of the model, to which the findings are added.
    """
    trained = on_disk(model, copies=2)
    alive = random_half(graph)
    give(model, trained.pop())
    slim, report = converted(model, graph, alive, images)
    figures |= {
        "macs_ratio": report.macs_ratio,
        "dropped": report.dropped,
        "float64_difference": report.float64_difference,
        "differences": differences(model, slim, graph, alive, images, other_size),
    }
    for check in (converts_again, trains, exports):
        try:
            figures[check.__name__] = check(copy.deepcopy(slim), images)
        except Exception as error:  # a figure, like the others
            figures[check.__name__] = said(error)
    del slim
    give(model, trained.pop())
    slim, report = converted(model, graph, half_of_the_macs(graph), images)
    with torch.no_grad():
        counted = count_macs(slim, images)
    figures["half"] = {
        "macs_ratio": report.macs_ratio,
        "macs_ratio_counted": counted / figures["macs"],
        "float64_difference": report.float64_difference,
    }


def converted(
    model: nn.Module, graph: ChannelGraph, alive: np.ndarray, images: torch.Tensor
) -> tuple[nn.Module, ConversionReport]:
    """The model converted after some units have died, and the report.

    Both networks end up on disk: for large ones, memory has room for little more than the conversion's copy in float64.

    Args:
        model: with compactors; the rows of dead units become zero.
        graph: its graph.
        alive: [num_units] of bool, the units that live.
        images: what it is called with.
    """
    LiveModel(model, graph).zero_dead_rows(alive)
    give(model, *on_disk(model))
    slim, report = convert(LiveModel(model, graph), images)
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
    images: torch.Tensor,
    other_size: int,
) -> dict[str, dict[str, float]]:
    """Largest difference of the outputs over the largest output, all against the unconverted model in float64.

    Args:
        model: the unconverted network in float32, with compactors.
        slim: the converted network in float32.
        graph: the model's graph.
        alive: [num_units] of bool, the units that `slim` has left.
        images: one image, which gives the first size.
        other_size: side of two more images, in pixels.

    Returns:
        By shape of the inputs: `float64` (converted in float64), `float32` (`slim`), `float32_own` (the model itself).
    """
    inputs = [torch.randn_like(images), torch.randn(2, 3, other_size, other_size)]
    exact_model = exact_copy(model)
    exact = [logits(exact_model(batch.double())) for batch in inputs]
    del exact_model  # memory holds only one such copy of a large network
    exact_slim = fold(LiveModel(model, graph), alive)
    outputs = {
        "float64": [logits(exact_slim(batch.double())) for batch in inputs],
        "float32": [logits(slim(batch)) for batch in inputs],
        "float32_own": [logits(model(batch)) for batch in inputs],
    }
    return {
        " x ".join(map(str, batch.shape)): {
            name: float((found[position] - exact[position]).abs().max() / exact[position].abs().max())
            for name, found in outputs.items()
        }
        for position, batch in enumerate(inputs)
    }


def logits(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The network's output, the main one where there are auxiliary ones."""
    return output if isinstance(output, torch.Tensor) else output[0]


def converts_again(slim: nn.Module, images: torch.Tensor) -> bool:
    """Whether the converted network is traced again and comes out of a conversion as it went in."""
    again, report = convert(LiveModel(slim, ChannelGraph(slim, images)), images, prove=False)
    with torch.no_grad():
        return report.dropped == 0 and torch.allclose(logits(again(images)), logits(slim(images)), rtol=1e-5, atol=1e-6)


def trains(slim: nn.Module, images: torch.Tensor) -> bool:
    """Whether one step of SGD leaves every parameter finite."""
    slim.train()
    optimizer = torch.optim.SGD(slim.parameters(), lr=1e-4)
    F.cross_entropy(logits(slim(torch.cat([images, images.flip(3)]))), torch.tensor([0, 1])).backward()
    optimizer.step()
    return all(bool(parameter.isfinite().all()) for parameter in slim.parameters())


def exports(slim: nn.Module, images: torch.Tensor) -> bool:
    """Whether torch.export takes the converted network."""
    torch.export.export(slim.eval(), (images,))
    return True


def said(error: Exception) -> str:
    """An error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
