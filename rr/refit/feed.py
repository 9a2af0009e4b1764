"""The images that a network is refitted on, and how it is called with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rr.errors import InputError
from rr.graph import ExampleInputs

LossFunction = Callable[[nn.Module, Any], Tensor]  # model, batch -> the task's loss


@dataclass(frozen=True)
class Feed:
    """Batches, and what is done with one.

    Attributes:
        batches: what the user gave.
        loss_fn: the task's own loss; without one the network's outputs say what matters.
        held_out: how many of the batches, the last ones, decide nothing, and say what the refit is worth.
    """

    batches: Sequence[Any]
    loss_fn: LossFunction | None = None
    held_out: int = 0

    @classmethod
    def of(cls, model: nn.Module, batches: Iterable[Any], loss_fn: LossFunction | None, share: float) -> Feed:
        """On the model's device and in its type, where they are inputs alone.

        Args:
            model: the network.
            batches: what the user gave.
            loss_fn: the task's own loss, if any.
            share: of the images; the last batches that come nearest to it are held out: one at least, but never all.

        Raises:
            InputError: if there are none.
        """
        kept = list(batches) if loss_fn else [ExampleInputs.of(batch).like(model) for batch in batches]
        if not kept:
            raise InputError("there are no batches to refit the network on: give some hundred inputs")
        if not loss_fn:
            _check_call(model, kept[0])
        if not share:
            return cls(kept, loss_fn)
        feeds = [cls(kept, loss_fn, held_out) for held_out in range(1, len(kept))]
        wanted = share * sum(map(feeds[0].images, kept)) if feeds else 0
        return min(feeds, key=lambda feed: abs(feed.images_in(feed.unseen) - wanted), default=cls(kept, loss_fn))

    @property
    def fitted(self) -> range:
        """The numbers of the batches that the network is refitted on."""
        return range(len(self.batches) - self.held_out)

    @property
    def unseen(self) -> range:
        """The numbers of those that are held out."""
        return range(len(self.batches) - self.held_out, len(self.batches))

    def images_in(self, numbers: Iterable[int]) -> int:
        """How many images these batches have."""
        return sum(self.images(self.batches[number]) for number in numbers)

    def run(self, model: nn.Module, batch: Any) -> Tensor | None:
        """Let the model run on a batch; returns the task's loss, where there is one."""
        if self.loss_fn is not None:
            return self.loss_fn(model, batch)
        batch.call(model)
        return None

    def loss(self, model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        """What the squared gradients of are taken: the task's loss, or one that is drawn (`drawn_loss`)."""
        if self.loss_fn is None:
            return drawn_loss(batch.call(model), generator)
        loss = self.loss_fn(model, batch)
        check_finite(loss)
        return loss * self.images(batch)

    def images(self, batch: Any) -> int:
        """How many images a batch has."""
        if isinstance(batch, ExampleInputs):
            return batch.batch_size
        return next(leaf.shape[0] for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.dim())


def _check_call(model: nn.Module, batch: ExampleInputs) -> None:
    try:
        inspect.signature(model.forward).bind(*batch.args, **batch.kwargs)
    except TypeError as error:
        raise InputError(
            f"the model's forward can't be called with a batch ({error}): batches hold what the model is called with, "
            "so leave labels out, `(images for images, labels in loader)`, or give `loss_fn`"
        ) from None


def check_finite(*tensors: Tensor) -> None:
    """Check what a network computes.

    Raises:
        InputError: if a value isn't finite.
    """
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise InputError("the network computes values that aren't finite on these inputs: look at the inputs first")


def drawn_loss(outputs: Any, generator: torch.Generator) -> Tensor:
    """A loss whose gradients have the Fisher matrix as their covariance; summed over the images.

    Logits ([N, classes] alone): the cross-entropy with labels drawn from them. Anything else: each output tensor times
    random signs, over its own deviation, as if all were means of normal distributions.
    """
    tensors = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.requires_grad]
    check_finite(*tensors)
    if len(tensors) == 1 and tensors[0].dim() == 2 and tensors[0].shape[1] > 1:
        logits = tensors[0].float()
        labels = torch.multinomial(logits.detach().softmax(1).cpu(), 1, generator=generator)[:, 0]
        return F.cross_entropy(logits, labels.to(logits.device), reduction="sum")
    total = tensors[0].new_zeros((), dtype=torch.float32)
    for tensor in tensors:
        signs = torch.randint(0, 2, tensor.shape, generator=generator).mul_(2).sub_(1).to(tensor.device)
        values = tensor.detach().float()
        deviation = values.std() if values.numel() > 1 else torch.ones_like(values.sum())  # a single number has none
        scale = deviation.clamp_min(1e-12) * tensor[0].numel() ** 0.5
        total = total + (tensor.float() * signs).sum() / scale
    return total
