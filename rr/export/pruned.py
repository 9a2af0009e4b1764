"""A pruned network to and from `.safetensors`, with all that is needed to build and to use it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from rr.errors import InputError
from rr.export.program import exported_program, save_program
from rr.version import __version__
from rr.weights import NetworkCard, build_named, converted_in, read_weights, widths_of
from rr.weights.safetensors_files import save_safetensors

SUFFIX = ".safetensors"

logger = logging.getLogger(__name__)


def save_pruned(
    model: nn.Module, path: str | Path, card: NetworkCard | None = None, example_inputs: Tensor | None = None
) -> None:
    """Write a pruned network as `.safetensors`, and beside it as `.pt2`, which loads and runs with torch alone.

    Where torch can't export the network, or nothing says what images it takes, a line of the log says so, and there is
    no `.pt2` beside the file.

    Args:
        model: what a conversion or `load_pruned` returned: it knows its widths.
        path: the file, `NAME.safetensors`.
        card: what the file is to say about the network; its widths and version are filled in.
        example_inputs: images, [N, C, H, W]; None for the size that the card names.

    Raises:
        InputError: if the model isn't a converted one, the file's name ends in something else, or the card holds what
            isn't a plain value.
    """
    path = Path(path)
    _check_name(path)
    card = replace(card or NetworkCard(), widths=tuple(widths_of(model)), version=__version__)
    save_safetensors(path, model.state_dict(), card)
    beside = path.with_suffix(".pt2")
    beside.unlink(missing_ok=True)  # one of another network must not stay beside this one
    try:
        program, any_size = exported_program(model, _example(model, card, example_inputs))
        save_program(beside, program, card)
    except InputError as error:
        logger.warning("no %s is written: %s", beside.name, error)
        return
    logger.info("%s takes any batch%s", beside, " and size of the images" if any_size else ", and this size of images")


def load_pruned(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """The pruned network in a file that `save_pruned` wrote, in eval mode; its `card` says what the file says of it.

    Args:
        path: the file, `NAME.safetensors`.
        model: the full network that was pruned, with any weights; it stays as it is. None to build the one that the
            file names: torchvision's, timm's, or this project's in a checkout.

    Raises:
        InputError: if the file is missing or broken, isn't of this network, or names none that can be built.
    """
    _check_name(Path(path))
    file = read_weights(path)
    card = file.card
    if card is None or not card.widths:
        raise InputError(f"{path} isn't a file of save_pruned: give load_converted its path and the full network")
    if model is None:
        if card.architecture is None:
            raise InputError(f"{path} doesn't name its network: give the full one, load_pruned(FILE, model)")
        model = build_named(card.architecture, card.keywords)
    slim = converted_in(file, model, str(path))
    slim.card = card
    return slim


def _check_name(path: Path) -> None:
    if path.suffix != SUFFIX:
        raise InputError(f"{path} must end in {SUFFIX}")


def _example(model: nn.Module, card: NetworkCard, given: Tensor | None) -> Tensor:
    """Images that the network takes."""
    if given is not None:
        return given
    if card.in_channels is None or card.image_size is None:
        raise InputError("give example_inputs, or in_channels and image_size in the card")
    anchor = next(model.parameters())
    shape = (2, card.in_channels, card.image_size, card.image_size)
    return torch.zeros(shape, dtype=anchor.dtype, device=anchor.device)
