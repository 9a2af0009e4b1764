"""How much the task minds an error at each output of a layer: the mean squared gradient there, per image.

That is the diagonal of the Fisher matrix in the layer's outputs when labels are drawn from the network's own answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rr.graph import LayerKind
from rr.refit.capture import Sink, hand_on
from rr.refit.feed import Feed
from rr.refit.rows import Reader
from rr.refit.watch import Watch
from rr.runtime import is_first


def capture_with_gradients(
    model: nn.Module, readers: Sequence[Reader], most_places: int, feed: Feed, generator: torch.Generator, sink: Sink
) -> dict[str, Tensor]:
    """Run a network on all images, hand on what its layers read, and see how much an error of each output matters.

    Args:
        model: the network, of which some parameters are trained; their gradients stay as they are.
        readers: the layers.
        most_places: of an image, at most so many.
        feed: its images.
        generator: draws the labels.
        sink: gets what was seen, layer by layer.

    Returns:
        Layer -> [D], the sum over an image's places of the squared gradient at each output, mean over images.
    """
    squares: dict[str, Tensor] = {}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with ExitStack() as stack:
        for reader in readers:
            module = model.get_submodule(reader.layer.name)
            stack.callback(module.register_forward_hook(_observing(reader, squares)).remove)
        for number, batch in enumerate(tqdm(feed, "looking at the network", disable=None if is_first() else True)):
            with torch.enable_grad():
                with Watch(model, readers, most_places, number) as watch:
                    loss = feed.loss(model, batch, generator)
                torch.autograd.grad(loss, parameters, allow_unused=True)  # the hooks see all that lies between
            hand_on(watch, readers, number, sink)
    images = sum(map(feed.images, feed))
    return {name: total / images for name, total in squares.items()}


def _observing(reader: Reader, squares: dict[str, Tensor]) -> Callable[..., None]:
    name, dim = reader.layer.name, 1 if reader.layer.kind is not LayerKind.LINEAR else -1

    def see(_: nn.Module, inputs: object, output: Tensor) -> None:
        if not output.requires_grad:
            return

        def add(gradient: Tensor) -> None:
            square = gradient.float().square()
            found = square.sum([other for other in range(square.dim()) if other != dim % square.dim()]).double()
            squares[name] = squares[name] + found if name in squares else found

        output.register_hook(add)

    return see
