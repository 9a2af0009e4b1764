"""What a refit is worth: a network's own outputs and its task's loss, cut alone and refitted, on images held out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rr.refit.feed import Feed
from rr.refit.processes import added_up, total


@dataclass(frozen=True)
class Outputs:
    """How far the network's outputs are from the full one's.

    Attributes:
        before: their mean squared error with the channels cut and nothing refitted, over their variance in the full
            network; of several outputs, all together.
        after: with the refit.
    """

    before: float
    after: float


@dataclass(frozen=True)
class Loss:
    """The task's loss, mean over the images.

    Attributes:
        full: of the full network.
        before: with the channels cut and nothing refitted.
        after: with the refit.
    """

    full: float
    before: float
    after: float


@torch.no_grad()
def outcome(
    full: nn.Module, cut: nn.Module, refitted: nn.Module, feed: Feed, numbers: Iterable[int]
) -> tuple[Outputs | None, Loss | None]:
    """Run three networks, in eval mode, on the same images.

    Args:
        full: the full network.
        cut: without the channels that go, and nothing refitted.
        refitted: without them, refitted.
        feed: the images; where it has the task's loss, that is looked at too.
        numbers: of the batches.

    Returns:
        What became of the outputs, None where they can't be compared (a detector's, as many as it finds); and of the
        loss, None where there is none.
    """
    like = next(full.parameters())
    squares, losses = (torch.zeros(3, dtype=torch.float64, device=like.device) for _ in range(2))
    images, differing = 0, 0
    for number in numbers:
        batch = feed.batches[number]
        outputs, of_batch = zip(*(_called(network, feed, batch) for network in (full, cut, refitted)), strict=True)
        found = _squares_of(*outputs)
        differing += found is None
        squares += 0.0 if found is None else found
        losses += torch.tensor(of_batch).to(losses) * feed.images(batch)
        images += feed.images(batch)
    variance, *errors = added_up(squares).tolist()
    is_comparable = total(differing, like) == 0 and variance > 0
    compared = Outputs(*(error / variance for error in errors)) if is_comparable else None
    count = total(images, like)
    return compared, None if feed.loss_fn is None else Loss(*(added_up(losses) / count).tolist())


def _called(network: nn.Module, feed: Feed, batch: Any) -> tuple[list[Tensor], float]:
    """A network's outputs for a batch, and the task's loss (0 where there is none)."""
    outputs: list[Any] = []
    hook = network.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        loss = feed.run(network, batch)
    finally:
        hook.remove()
    tensors = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return tensors, 0.0 if loss is None else float(loss)


def _squares_of(full: Sequence[Tensor], *others: Sequence[Tensor]) -> Tensor | None:
    """[1 + others]: the squares of the outputs [N, ...] about their means, and of each other network's errors."""
    shapes = [[output.shape for output in outputs] for outputs in (full, *others)]
    if not full or any(each != shapes[0] for each in shapes):
        return None
    exact = [output.double() for output in full]
    about_mean = sum((output - _mean_of(output)).square().sum() for output in exact)
    errors = [
        sum((output.double() - wanted).square().sum() for output, wanted in zip(outputs, exact, strict=True))
        for outputs in others
    ]
    return torch.stack([about_mean, *errors])


def _mean_of(output: Tensor) -> Tensor:
    """The mean over the images; of a single one, whose own outputs that would be, over all that it gives."""
    return output.mean(0) if output.shape[:1].numel() > 1 else output.mean()
