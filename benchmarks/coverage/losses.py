"""A loss for each kind of network, on whatever the network returns in training mode: only that it has gradients counts.

Targets are made from the outputs' shapes, so that a loss needs nothing but the outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten_with_path, tree_leaves

Loss = Callable[[Any], Tensor]

SCORES = ("cls", "class", "logits", "scores", "objectness", "ctrness")  # in the names of what is no box


def classes(output: Any) -> Tensor:
    """Cross-entropy of logits [N, classes, ...] or of the first of several: classifiers, segmentation."""
    logits = main(output)
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits, _alternating(logits, dim=-1).float())
    return F.cross_entropy(logits, _alternating(logits.select(1, 0)))


def every_head(output: Any) -> Tensor:
    """The sum of `classes` over all outputs: several tasks, deep supervision."""
    return torch.stack([classes(tensor) for tensor in floats(output)]).sum()


def regression(output: Any) -> Tensor:
    """Smooth L1 of all outputs to zero: images, heatmaps, sounds."""
    return torch.stack([F.smooth_l1_loss(tensor, torch.zeros_like(tensor)) for tensor in floats(output)]).sum()


def detection(output: Any) -> Tensor:
    """Of what is named like scores, cross-entropy with a sparse target; of the rest (boxes, masks) smooth L1."""
    parts = []
    for path, tensor in tree_flatten_with_path(output)[0]:
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.requires_grad:
            if any(word in str(path).lower() for word in SCORES):
                target = (torch.arange(tensor.numel()) % 50 == 0).to(tensor.dtype).view(tensor.shape)
                parts.append(F.binary_cross_entropy_with_logits(tensor, target))
            else:
                parts.append(F.smooth_l1_loss(tensor, torch.ones_like(tensor)))
    return torch.stack(parts).sum()


def endpoint_error(output: Any) -> Tensor:
    """The mean length of what is off in each flow [N, 2, H, W], later ones counting more: optical flow."""
    flows = floats(output)
    lengths = [(flow - 1).square().sum(1).add(1e-6).sqrt().mean() for flow in flows]
    return torch.stack([0.8 ** (len(flows) - place) * length for place, length in enumerate(lengths)]).sum()


def sequence(output: Any) -> Tensor:
    """Connectionist temporal classification of logits [N, T, classes]: text, speech."""
    steps = main(output).log_softmax(2).transpose(0, 1)  # [T, N, classes]
    length, batch, number = steps.shape
    targets = torch.arange(batch * 2).view(batch, 2) % (number - 1) + 1
    return F.ctc_loss(steps, targets, torch.full((batch,), length), torch.full((batch,), 2))


def contrastive(output: Any) -> Tensor:
    """Of two embeddings [N, D]: the first pair belongs together, the others are to be apart."""
    first, second = floats(output)[:2]
    gap = F.pairwise_distance(first, second)
    same = torch.arange(len(gap)) == 0
    return torch.where(same, gap.square(), (1 - gap).clamp(min=0).square()).mean()


def real_or_not(output: Any) -> Tensor:
    """Binary cross-entropy of all outputs with "real": discriminators."""
    return F.binary_cross_entropy_with_logits(main(output), torch.ones_like(main(output)))


def main(output: Any) -> Tensor:
    """The network's first output: the main one where there are auxiliary ones."""
    return floats(output)[0]


def floats(output: Any) -> list[Tensor]:
    """All tensors of floating point that a network returned, in their order."""
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _alternating(tensor: Tensor, dim: int = 0) -> Tensor:
    """Zeros and ones in the tensor's shape, in turn along a dimension."""
    shape = [1] * tensor.dim()
    shape[dim] = tensor.shape[dim]
    return (torch.arange(tensor.shape[dim]) % 2).view(shape).expand(tensor.shape)
