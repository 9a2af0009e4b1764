"""All figures of one model, for run.py: trace it, kill half of its channels, convert it, compare."""

from __future__ import annotations

import copy
import logging
import math
import re
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from base_model import build_any
from benchmarks.coverage.figures import HALF, bars
from rr.compactors import find_compactors
from rr.conversion import ConversionReport, convert, fold, rehearse
from rr.conversion.proof import exact_copy
from rr.graph import ChannelGraph, LiveModel
from rr.graph.costs import Target
from rr.graph.operations import operation
from rr.graph.tensors import named_tensors
from rr.selection.forgetting import select_forgotten
from training import count_macs

logger = logging.getLogger(__name__)

SIZES = ((64, 96), (299, 331), (224, 256), (224, 224))  # pairs of input sizes; the first that a network takes
WINDOWED = ("swin", "maxvit")  # take 64 x 64 as well, but then compute padding above all
ATTENTION = frozenset(
    ["scaled_dot_product_attention", "_native_multi_head_attention", "_transformer_encoder_layer_fwd"]
)
BYTES_EACH = 16  # of memory at worst, for each parameter, compactors' included: float32, and a copy in float64
PRODUCTS = frozenset(["matmul", "bmm", "baddbmm", "einsum"])


def examine(name: str, most_parameters: int, most_bytes: float = math.inf) -> dict[str, Any]:
    """All figures of one model, and the bars it passes; what goes wrong is a figure as well.

    most_parameters: models with more are traced only
    most_bytes: one whose proof takes more memory is {"postponed": bytes} and nothing else
    """
    began = time.perf_counter()
    figures: dict[str, Any] = {}
    torch.manual_seed(0)
    try:
        model = build_any(name)
        figures["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        sizes = fitting_sizes(randomised(model).eval(), name)
        images = torch.randn(1, 3, sizes[0], sizes[0])
        graph = trace(model, images, figures)
        if figures["parameters"] > most_parameters:
            figures["not_run"] = "only traced: too large for this machine's memory in float64"
        else:
            graph = rehearsed(model, graph, images, figures)
            put_compactors(model, graph)
            needed = BYTES_EACH * sum(parameter.numel() for parameter in model.parameters())
            if needed > most_bytes:
                return {"postponed": needed}
            prove(model, graph, images, sizes[1], figures)
    except Exception as error:  # the benchmark goes on: this is what it is there to find
        figures["failed"] = said(error)
    return {**figures, "bars": bars(figures), "seconds": time.perf_counter() - began}


def trace_cost(name: str) -> dict[str, Any]:
    """What tracing one model takes, and nothing else of `examine`."""
    torch.manual_seed(0)
    model = build_any(name)
    size, _ = fitting_sizes(randomised(model).eval(), name)
    figures: dict[str, Any] = {}
    trace(model, torch.randn(1, 3, size, size), figures)
    return {key: figures[key] for key in ("trace_seconds", "trace_cpu_seconds")}


def said(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@torch.no_grad()
def randomised(model: nn.Module) -> nn.Module:
    """Statistics, scales and shifts of no particular network, signs included: nothing is hidden by how it begins.

    (A layer scale of 1e-6, a gain or a head of 0 would leave nothing of what lies behind it in the outputs.)
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
def fitting_sizes(model: nn.Module, name: str) -> tuple[int, int]:
    """The first two input sizes of `SIZES` that the network takes; the same twice where it takes but one."""
    for pair in SIZES[2 if name.rpartition("/")[2].startswith(WINDOWED) else 0 :]:
        try:
            for size in pair:
                model(torch.zeros(1, 3, size, size))
            return pair
        except Exception as error:  # whatever a network raises for images that it doesn't take
            logger.info("%s takes no images of %d x %d: %s", name, size, size, said(error))
    raise ValueError(f"takes images of none of the sizes {SIZES}")


def trace(model: nn.Module, images: torch.Tensor, figures: dict[str, Any]) -> ChannelGraph:
    """The channel graph; what it says of the network goes into `figures`."""
    ChannelGraph(nn.Sequential(nn.Conv2d(3, 1, 1)), images)  # what the first export of a process loads isn't counted
    began, began_cpu = time.perf_counter(), time.process_time()
    graph = ChannelGraph(model, images)
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


def rehearsed(model: nn.Module, graph: ChannelGraph, images: torch.Tensor, figures: dict[str, Any]) -> ChannelGraph:
    """Rehearse, as every run does before it trains: what fails with fewer channels can't go either."""
    began = time.perf_counter()
    if graph.prunable.any():
        graph = rehearse(model, graph, images, graph.prunable)
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
    """Whether activations are multiplied with activations as matrices: by nothing else can a CNN be told from the rest.

    (A softmax alone is no sign: CNNs weigh their branches with it.)
    """

    def activations(node: fx.Node) -> int:
        return sum(graph.trace.parameter(source) is None for source in node.all_input_nodes)

    calls = [node for node in graph.trace.nodes if node.op == "call_function"]
    return any(
        operation(node) in ATTENTION or (operation(node) in PRODUCTS and activations(node) > 1) for node in calls
    )


def causes(graph: ChannelGraph, model: nn.Module) -> list[dict[str, Any]]:
    """Why units stay: each cause without the names of layers in it, how many units it holds, and the first as it is."""
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


def prove(
    model: nn.Module, graph: ChannelGraph, images: torch.Tensor, other_size: int, figures: dict[str, Any]
) -> None:
    """With a random half of the prunable units dead: convert, compare, use; then with half of the MACs gone."""
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
    """What becomes of the model when all units but the `alive` ones ([num_units] of bool) die.

    Both end on disk: of the large networks, memory has room for little more than the conversion's copy in float64.
    """
    LiveModel(model, graph).zero_dead_rows(alive)
    give(model, *on_disk(model))
    slim, report = convert(LiveModel(model, graph), images)
    give(slim, *on_disk(slim))
    return slim, report


def on_disk(model: nn.Module, copies: int = 1) -> list[dict[str, torch.Tensor]]:
    """Copies of the model's tensors, by name, in a file that is gone when they are.

    Memory holds as much of them as it has room for, and what is written to a copy (the file stays as it is).
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tensors.pt"
        torch.save({name: tensor.detach() for name, tensor in named_tensors(model).items()}, path)
        return [torch.load(path, mmap=True) for _ in range(copies)]


def give(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Let the model have these tensors, by name, as its parameters and buffers."""
    for name, tensor in named_tensors(model).items():
        tensor.data = tensors[name]


def put_compactors(model: nn.Module, graph: ChannelGraph) -> None:
    """Compactors behind every layer with prunable channels, set to 0.5 I + noise."""
    graph.insert_compactors(model, graph.prunable)
    with torch.no_grad():
        for compactor in find_compactors(model).values():
            weight = compactor.pwc.weight
            weight.copy_(0.5 * weight + torch.randn_like(weight) * weight[0].numel() ** -0.5)


def random_half(graph: ChannelGraph) -> np.ndarray:
    """[num_units] of bool, what lives: each prunable unit with probability 0.5, and one of each group."""
    alive = ~graph.prunable | (np.random.default_rng(0).random(graph.num_units) >= 0.5)
    for group in graph.groups:
        if not alive[group.units].any():
            alive[group.units[0]] = True
    return alive


def half_of_the_macs(graph: ChannelGraph) -> np.ndarray:
    """[num_units] of bool, what lives when masks take prunable units at random until half of the MACs are left."""
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

    slim: the converted network in float32; alive: [num_units] of bool, the units that it has left

    By shape of the inputs: one image of the size of `images`, two of the other. Each of `float64` (converted in
    float64), `float32` (`slim`) and `float32_own` (the unconverted model).
    """
    inputs = [torch.randn_like(images), torch.randn(2, 3, other_size, other_size)]
    exact_model = exact_copy(model)
    exact = [logits(exact_model(batch.double())) for batch in inputs]
    del exact_model  # of the large networks, memory holds one such copy
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
