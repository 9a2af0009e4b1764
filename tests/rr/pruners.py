"""Small pruners and training steps for the tests of what happens in a loop."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import ResRepPruner, paper_config
from tests.rr.networks import Net, conv, generic, graph_of, head, tiny

IMAGES = torch.zeros(1, 1, 8, 8)
LENIENT = {"flops_target": 0.5, "penalty": 0.01}


def tiny_pruner(**settings: object) -> ResRepPruner:
    torch.manual_seed(0)
    config = paper_config(**LENIENT | settings)
    silence, diagonal = config.narrowing.mode != "no", config.compactors == "diagonal"
    graph = graph_of(tiny, tuple(IMAGES.shape), silence=silence, diagonal=diagonal)
    return ResRepPruner(generic(tiny()), IMAGES, config, graph=graph)


def stream_pruner() -> ResRepPruner:
    """Three layers add into one stream of 5 channels; `mid` is a layer of its own."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.a(x)
        x = F.relu(x + net.b(F.relu(net.mid(x))))
        return head(net, x + net.c(x))

    torch.manual_seed(0)
    modules = {"a": conv(1, 5), "mid": conv(5, 4), "b": conv(4, 5), "c": conv(5, 5), "fc": nn.Linear(5, 3)}
    return ResRepPruner(Net(forward, **modules), IMAGES, paper_config(**LENIENT, layers="all"))


def batch(seed: int, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 1, 8, 8, generator=generator), torch.randint(0, 3, (size,), generator=generator)


def loss_of(pruner: ResRepPruner, seed: int = 0) -> torch.Tensor:
    images, labels = batch(seed)
    weight = next(pruner.model.parameters())
    return F.cross_entropy(pruner.model.train()(images.to(weight)), labels)


def observe(pruner: ResRepPruner, seed: int = 0, scale: float = 1.0) -> None:
    """What a step's pre-hook does: gradients of the task (times `scale`), then adjusted."""
    pruner.model.zero_grad()
    (loss_of(pruner, seed) * scale).backward()
    pruner.adjust_gradients(scale)


def optimizer_of(pruner: ResRepPruner, lr: float = 0.05) -> torch.optim.SGD:
    optimizer = torch.optim.SGD(pruner.param_groups(lr=lr))
    pruner.attach(optimizer)
    return optimizer


def step(pruner: ResRepPruner, optimizer: torch.optim.Optimizer, seed: int) -> float:
    images, labels = batch(seed)
    loss = F.cross_entropy(pruner.model.train()(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def randomise(pruner: ResRepPruner, seed: int = 0) -> dict[str, Tensor]:
    """Random rows, masks (one bit per unit) and task gradients; the gradients by host."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(pruner.graph.num_units, generator=generator) < 0.5
    task = {}
    with torch.no_grad():
        for site in pruner.sites:
            compactor = pruner.compactors[site.host]
            compactor.pwc.weight.normal_(generator=generator)
            compactor.mask.copy_(keep[torch.from_numpy(site.units)])
            task[site.host] = torch.randn(compactor.pwc.weight.shape, generator=generator)
            compactor.pwc.weight.grad = task[site.host].clone()
    return task


def wide() -> Net:
    """Layers of 40, 20 and 6 channels."""
    modules = {"a": conv(1, 40), "b": conv(40, 20), "c": conv(20, 6), "fc": nn.Linear(6, 3)}
    return Net(lambda net, x: head(net, F.relu(net.c(F.relu(net.b(F.relu(net.a(x))))))), **modules)


def wide_pruner(seed: int = 0, **settings: object) -> ResRepPruner:
    """Of `wide`, with rows of all norms."""
    torch.manual_seed(seed)
    graph = graph_of(wide, tuple(IMAGES.shape), silence=False, diagonal=False)
    pruner = ResRepPruner(wide(), IMAGES, paper_config(**LENIENT | settings), graph=graph)
    with torch.no_grad():
        for compactor in pruner.compactors.values():
            compactor.pwc.weight.mul_(torch.rand(len(compactor.mask), 1, 1, 1))
    return pruner


def masked_widths(pruner: ResRepPruner) -> list[int]:
    return pruner.graph.widths(pruner.unmasked.alive)


def set_masks(pruner: ResRepPruner, alive: np.ndarray) -> None:
    """Masks of 0 for the rows of dead units."""
    for site in pruner.sites:
        pruner.compactors[site.host].mask.copy_(torch.from_numpy(alive[site.units]))


def expected_gradients(pruner: ResRepPruner, task: dict[str, Tensor], scale: float = 1.0) -> dict[str, Tensor]:
    """m dL/dq + lambda q / |q|, row by row in float64; |q| is the root mean square over a unit's rows."""
    squares: dict[int, list[float]] = {}
    for site in pruner.sites:
        for row, unit in enumerate(site.units.tolist()):
            q = pruner.compactors[site.host].matrix[row].detach().double()
            squares.setdefault(unit, []).append(float((q * 1e30).square().sum()))
    gradients = {}
    for site in pruner.sites:
        compactor, rows = pruner.compactors[site.host], []
        for row, unit in enumerate(site.units.tolist()):
            q, norm = compactor.matrix[row].detach().double(), math.sqrt(np.mean(squares[unit])) / 1e30
            penalty = scale * _penalty_of(pruner, kept=bool(compactor.mask[row])) * q / norm if norm > 0 else 0 * q
            rows.append(float(compactor.mask[row]) * task[site.host][row].double().flatten() + penalty)
        gradients[site.host] = torch.stack(rows)
    return gradients


def _penalty_of(pruner: ResRepPruner, kept: bool) -> float:
    """lambda of the gradient of a row."""
    config = pruner.config.decay
    if kept:
        return config.penalty
    of_masked = config.penalty if config.masked_penalty is None else config.masked_penalty
    return 0.0 if config.proximal else of_masked


def gradients(pruner: ResRepPruner) -> dict[str, Tensor]:
    return {host: compactor.pwc.weight.grad.flatten(1).double() for host, compactor in pruner.compactors.items()}


def settle(pruner: ResRepPruner) -> None:
    """Update the masks until nothing changes any more."""
    for _ in range(80):
        pruner.update_masks()


def kill_masked_rows(pruner: ResRepPruner) -> None:
    with torch.no_grad():
        for compactor in pruner.compactors.values():
            compactor.pwc.weight[compactor.mask == 0] *= 1e-9
