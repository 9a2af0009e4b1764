"""Narrow networks cut without training: by ours, by the L1 norms of filters, by Torch-Pruning's importances."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torch_pruning
from torch import Tensor, nn

from rr import RefitConfig, prune
from rr.graph import ChannelGraph
from training import count_macs

IMPORTANCES = {
    "L1, uniform widths": (torch_pruning.importance.GroupMagnitudeImportance, {"p": 1}, False),
    "norm": (torch_pruning.importance.GroupMagnitudeImportance, {"p": 2}, True),
    "group norm": (torch_pruning.importance.GroupMagnitudeImportance, {"p": 2, "normalizer": "max"}, True),
    "Taylor": (torch_pruning.importance.GroupTaylorImportance, {}, True),
    "Hessian": (torch_pruning.importance.GroupHessianImportance, {}, True),
}
OURS = "ResRep's refit"
WAYS = (OURS, *IMPORTANCES)
TRIES = 12  # halvings of the share of channels that goes, until the MACs are what they should be


def cut(way: str, model: nn.Module, images: Sequence[Tensor], labels: Sequence[Tensor], target: float) -> nn.Module:
    """A narrow network made from the model, which stays as it is.

    Args:
        way: one of `WAYS`.
        model: the trained network, in eval mode.
        images: batches of training images.
        labels: theirs, which 'Taylor' and 'Hessian' use.
        target: share of the MACs that remain at most.
    """
    if way == OURS:
        how = RefitConfig(held_out=0.0)  # all images for the fit, as the others have them: it is judged on test images
        return prune(model, images[0][:2], images, flops_target=target, refitting=how)
    example, (kind, settings, is_global) = images[0][:2], IMPORTANCES[way]
    limit = target * count_macs(model, example)
    gradients = _gradients(way, model, images, labels)
    staying = _layers_that_stay(model, example)
    low, high, found = 0.0, 1.0, None
    for _ in range(TRIES):
        share = (low + high) / 2
        narrow = _cut_share(model, example, kind(**settings), gradients, share, is_global, staying)
        if count_macs(narrow, example) <= limit:
            high, found = share, narrow
        else:
            low = share
    assert found is not None, "nearly all channels gone is little enough"
    return found


def _cut_share(
    model: nn.Module,
    example: Tensor,
    importance: Any,
    gradients: dict[str, Tensor],
    share: float,
    is_global: bool,
    staying: Sequence[str],
) -> nn.Module:
    """A copy without this share of the channels in the layers that ours prunes too, at least one left in each."""
    narrow = copy.deepcopy(model)
    for name, parameter in narrow.named_parameters():
        parameter.grad = gradients[name].clone() if name in gradients else None
    torch_pruning.pruner.BasePruner(
        narrow,
        example,
        importance=importance,
        global_pruning=is_global,
        pruning_ratio=share,
        ignored_layers=[narrow.get_submodule(name) for name in staying],
    ).step()
    return narrow.requires_grad_(True)


def _layers_that_stay(model: nn.Module, example: Tensor) -> list[str]:
    """The layers with channels of their own that ours doesn't prune: those of the residual streams, and the last."""
    graph = ChannelGraph(model, example)
    selected = graph.select()
    makers = (layer for layer in graph.layers.values() if layer.kind.makes_channels)
    return [layer.name for layer in makers if not selected[layer.out_units].all()]


def _gradients(way: str, model: nn.Module, images: Sequence[Tensor], labels: Sequence[Tensor]) -> dict[str, Tensor]:
    """By parameter: 'Taylor' takes the mean gradient, 'Hessian' the mean of each image's squared one, others none.

    The package's own `accumulate_grad` keeps those of the last image alone (1.6.1); here its importance gets them all.
    """
    if way not in ("Taylor", "Hessian"):
        return {}
    count = sum(map(len, images))
    found = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for batch, classes in zip(images, labels, strict=True):
        size = 1 if way == "Hessian" else len(batch)
        for some, their in zip(batch.split(size), classes.split(size), strict=True):
            loss = F.cross_entropy(model(some), their, reduction="sum")
            each = torch.autograd.grad(loss, list(model.parameters()))
            for total, gradient in zip(found.values(), each, strict=True):
                total += (gradient.square() if way == "Hessian" else gradient) / count
    return found


@torch.no_grad()
def with_statistics_anew(model: nn.Module, images: Sequence[Tensor]) -> nn.Module:
    """A copy whose BN layers have the mean and variance of these images, in the network as it is now."""
    anew = copy.deepcopy(model)
    for module in anew.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches
    anew.train()
    for batch in images:
        anew(batch)
    return anew.eval()
