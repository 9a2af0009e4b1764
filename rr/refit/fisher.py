"""How much the task minds errors at the outputs of a layer: the Fisher matrix there, of gradients g of the loss.

With labels drawn from the network's own answers an error e of the outputs changes what it says by e'Fe / 2, F the mean
of gg' (Martens & Grosse 2015, Optimizing Neural Networks with Kronecker-factored Approximate Curvature). An image has
an error at each place: were they of independent signs, F would be the sum over places of gg'; were they all the same,
s s' with s the sum of g (Eschenhagen et al. 2023, "expand" and "reduce"). Here it is a mean of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from rr.graph import LayerKind
from rr.refit.capture import Sink, hand_on
from rr.refit.feed import Feed
from rr.refit.processes import added_up, total
from rr.refit.rows import Reader
from rr.refit.watch import Watch
from rr.runtime import Progress

SAME_EVERYWHERE = 0.5  # share of errors that are the same at all places of an image
SHRINKAGE = 0.5  # of what the Fisher matrix has off its diagonal
MOST_OUTPUTS = 2048  # of a layer; of one with more, the diagonal alone is looked at


def capture_with_gradients(
    model: nn.Module, readers: Sequence[Reader], most_places: int, feed: Feed, generator: torch.Generator, sink: Sink
) -> dict[str, Tensor]:
    """Run a network on images, hand on what its layers read, and see how much an error of each output matters.

    Args:
        model: the network, of which some parameters are trained; their gradients stay as they are.
        readers: the layers.
        most_places: of an image, at most so many.
        feed: its images, of which those that are held out aren't looked at.
        generator: draws the labels.
        sink: gets what was seen, layer by layer.

    Returns:
        Layer -> [D, D], the Fisher matrix in its outputs; diagonal where there are very many.
    """
    fisher: dict[str, Tensor] = {}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with ExitStack() as stack:
        for reader in readers:
            module = model.get_submodule(reader.layer.name)
            stack.callback(module.register_forward_hook(_observing(reader, fisher)).remove)
        progress = stack.enter_context(Progress("measuring what each channel is worth", len(feed.fitted), "batches"))
        for number in feed.fitted:
            with torch.enable_grad():
                with Watch(model, readers, most_places, number) as watch:
                    loss = feed.loss(model, feed.batches[number], generator)
                torch.autograd.grad(loss, parameters, allow_unused=True)  # the hooks see all that lies between
            hand_on(watch, readers, number, sink)
            progress.update()
    images = total(feed.images_in(feed.fitted), parameters[0])
    return {name: _shrunk(added_up(found) / images) for name, found in fisher.items()}


def _shrunk(fisher: Tensor) -> Tensor:
    """With less off its diagonal: a few hundred images say little of it."""
    return SHRINKAGE * torch.diag(fisher.diagonal()) + (1 - SHRINKAGE) * fisher


def _observing(reader: Reader, fisher: dict[str, Tensor]) -> Callable[..., None]:
    name, is_linear = reader.layer.name, reader.layer.kind is LayerKind.LINEAR

    def see(_: nn.Module, inputs: object, output: Tensor) -> None:
        if not output.requires_grad:
            return

        def add(gradient: Tensor) -> None:
            each = gradient.float() if is_linear else gradient.float().movedim(1, -1)
            each = each.reshape(len(each), -1, each.shape[-1])  # [images, places, D]
            found = SAME_EVERYWHERE * _products(each.sum(1)) + (1 - SAME_EVERYWHERE) * _products(each.flatten(0, 1))
            fisher[name] = fisher[name] + found if name in fisher else found

        output.register_hook(add)

    return see


def _products(gradients: Tensor) -> Tensor:
    """[D, D], the sum of gg' over gradients [n, D]."""
    if gradients.shape[1] > MOST_OUTPUTS:
        return torch.diag(gradients.square().sum(0).double())
    return (gradients.T @ gradients).double()
