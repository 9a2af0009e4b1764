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
from rr.refit.feed import Feed
from rr.refit.rows import Reader
from rr.runtime import is_first


def squared_gradients(
    model: nn.Module, readers: Sequence[Reader], feed: Feed, generator: torch.Generator
) -> dict[str, Tensor]:
    """Layer -> [D], the sum over an image's places of the squared gradient at each output, mean over images.

    Args:
        model: the network, of which some parameters are trained; their gradients stay as they are.
        readers: the layers.
        feed: its images.
        generator: draws the labels.
    """
    squares: dict[str, Tensor] = {}
    images = 0
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with ExitStack() as stack:
        for reader in readers:
            module = model.get_submodule(reader.layer.name)
            stack.callback(module.register_forward_hook(_observing(reader, squares)).remove)
        for batch in tqdm(feed, "gradients", disable=None if is_first() else True):
            images += feed.images(batch)
            with torch.enable_grad():
                loss = feed.loss(model, batch, generator)
                torch.autograd.grad(loss, parameters, allow_unused=True)  # the hooks see all that lies between
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
