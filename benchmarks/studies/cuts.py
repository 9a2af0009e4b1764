"""Narrow networks that are fine-tuned: by the L1 norms of filters, by Torch-Pruning's scores, or with new weights."""

from __future__ import annotations

import copy
import re
from itertools import islice
from typing import Any

import torch
from torch import nn

from base_model import build_model, full_widths
from data import Data
from rr.errors import InputError
from training import count_macs

INNER = re.compile(r"\.block\d+\.conv1\.conv$")  # what the paper prunes in these networks
PRUNING_STEPS = 400  # of Torch-Pruning's cut, as in its own experiments
SCORED = 20, 100  # batches and images in each, by which Taylor scores are taken


def cut(how: str, arch: str, model: nn.Module, data: Data, target: float) -> nn.Module:
    """A narrow network made from the model, which stays as it is.

    Args:
        how: 'l1', 'taylor' and 'torch-pruning' keep weights of the model, 'scratch' has new ones; 'unpruned' gives a
            copy.
        arch: the model's name.
        model: the trained network.
        data: the data set that it is for.
        target: share of the MACs that remain at most; 'unpruned' doesn't use it.

    Raises:
        InputError: if the target can't be reached.
    """
    if how == "unpruned":
        return copy.deepcopy(model)
    if how == "taylor":
        return cut_by_taylor(copy.deepcopy(model).eval(), data, target)
    if how == "torch-pruning":
        return cut_by_torch_pruning(copy.deepcopy(model), data, target)
    sizes = {"num_classes": data.num_classes, "in_channels": data.in_channels, "image_size": data.image_size}
    narrow = build_model(arch, uniform_widths(arch, data, target), **sizes)
    if how == "l1":
        copy_largest(model, narrow)
    return narrow.to(next(model.parameters()).device)


def uniform_widths(arch: str, data: Data, target: float) -> list[int]:
    """The widths with one share of the filters in the first convolution of every block, the largest that fits.

    Args:
        arch: the network's name.
        data: the data set that it is for.
        target: share of the MACs that remain at most.

    Raises:
        InputError: if one filter in each of these convolutions is too many.
    """
    sizes = {"num_classes": data.num_classes, "in_channels": data.in_channels, "image_size": data.image_size}
    image = torch.zeros(1, data.in_channels, data.image_size, data.image_size)
    full = full_widths(arch)
    with torch.device("meta"):
        names = [name for name, _ in convolutions(build_model(arch, **sizes))]
    most = 1024

    def widths(share: int) -> list[int]:
        return [
            max(1, (2 * width * share + most) // (2 * most)) if INNER.search(name) else width
            for name, width in zip(names, full, strict=True)
        ]

    def macs(share: int) -> int:
        return count_macs(build_model(arch, widths(share), **sizes), image)

    low, high, limit = 0, most, target * macs(most)
    if macs(low) > limit:
        raise InputError(f"flops_target {target:g} can't be reached: with one filter in each layer more remain")
    while high - low > 1:  # macs(low) <= limit < macs(high)
        middle = (low + high) // 2
        low, high = (middle, high) if macs(middle) <= limit else (low, middle)
    return widths(low)


def convolutions(model: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """Every convolution by name, in building order, which is that of the widths."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]


def widths_of(model: nn.Module) -> list[int]:
    """The width of every convolution."""
    return [module.out_channels for _, module in convolutions(model)]


@torch.no_grad()
def copy_largest(model: nn.Module, narrow: nn.Module) -> None:
    """Give the narrow network the weights of those filters of the model that have the largest L1 norms."""
    state = dict(model.state_dict())
    for name, conv in convolutions(model):
        if not INNER.search(name):
            continue
        norms = conv.weight.abs().sum((1, 2, 3))  # [D]
        kept = norms.topk(narrow.get_submodule(name).out_channels).indices.sort().values
        block = name.removesuffix(".conv1.conv")
        for key in [key for key, value in state.items() if key.startswith(f"{block}.conv1.") and value.dim() > 0]:
            state[key] = state[key][kept]
        reader = f"{block}.conv2.conv.weight"
        state[reader] = state[reader][:, kept]
    narrow.load_state_dict(state)


def layers_that_stay(model: nn.Module) -> list[nn.Module]:
    """The convolutions and linear layers that keep their width: all but the first ones of the blocks."""
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and not INNER.search(name)
    ]


def group_pruner(model: nn.Module, data: Data, penalty: float) -> Any:
    """Torch-Pruning's GroupNormPruner as in its own CIFAR experiments, for the first convolutions of the blocks.

    Args:
        model: the network.
        data: the data set that it is for.
        penalty: Torch-Pruning's `reg`.

    Raises:
        InputError: if the package is missing.
    """
    torch_pruning = _torch_pruning("torch-pruning")
    device = next(model.parameters()).device
    return torch_pruning.pruner.GroupNormPruner(
        model,
        torch.zeros(1, data.in_channels, data.image_size, data.image_size, device=device),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer="max"),
        reg=penalty,
        global_pruning=True,
        pruning_ratio=1.0,
        iterative_steps=PRUNING_STEPS,
        ignored_layers=layers_that_stay(model),
    )


def cut_by_taylor(model: nn.Module, data: Data, target: float) -> nn.Module:
    """Cut at once by Torch-Pruning's Taylor scores of some training images; the model, in eval mode, stays as it is.

    Raises:
        InputError: if the package is missing.
    """
    _torch_pruning("taylor")
    from benchmarks.studies.one_shot import cut as cut_at_once  # needs the package

    device = next(model.parameters()).device
    batches = list(islice(data.train_batches(0, batch_size=SCORED[1], seed=0, device=device), SCORED[0]))
    images, labels = [batch.images.float() for batch in batches], [batch.labels for batch in batches]
    return cut_at_once("Taylor", model, images, labels, target)


def cut_by_torch_pruning(model: nn.Module, data: Data, target: float) -> nn.Module:
    """Prune the model in place, step by step, until at most `target` of the MACs remain.

    Raises:
        InputError: if all of Torch-Pruning's steps are too few for that.
    """
    image = torch.zeros(1, data.in_channels, data.image_size, data.image_size, device=next(model.parameters()).device)
    limit = target * count_macs(model, image)
    pruner = group_pruner(model, data, 0.0)
    for _ in range(PRUNING_STEPS):
        if count_macs(model, image) <= limit:
            return model
        pruner.step()
    raise InputError(f"flops_target {target:g} can't be reached: raise it")


def _torch_pruning(how: str) -> Any:
    try:
        import torch_pruning
    except ImportError:
        raise InputError(f"how '{how}' needs the package torch-pruning: `pip install torch-pruning`") from None
    return torch_pruning
