"""The files of a pruned network that a run leaves: HDF5, `.pth`, `.safetensors` with a card, and `.pt2`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from data import Data
from rr import InputError, NetworkCard, save_pruned
from rr.weights import save_converted
from training import file_attributes
from training.run_folder import CONVERTED_WEIGHTS

_OF_THIS_MACHINE = ("data_dir", "output_dir", "base_weights", "teacher")  # paths: nobody else's business

logger = logging.getLogger(__name__)


def write_pruned(
    folder: Path, slim: nn.Module, arch: str, data: Data, recipe: Mapping[str, Any], proof: Mapping[str, Any]
) -> None:
    """Write a converted network in every format; the HDF5 file comes last, which says that all is done.

    Args:
        folder: where to.
        slim: what a conversion returned.
        arch: the full network's name.
        data: what it was pruned for: class names and normalisation.
        recipe: the settings, as plain values.
        proof: the conversion's report, as plain values.
    """
    converted = folder / CONVERTED_WEIGHTS
    try:
        save_pruned(slim, converted.with_suffix(".safetensors"), card_of(arch, data, recipe, proof))
    except InputError as error:  # a run of days isn't to end without its weights for what its card holds
        logger.warning("no .safetensors and .pt2 files are written: %s", error)
    save_converted(converted, slim, file_attributes(arch, data))


def card_of(arch: str, data: Data, recipe: Mapping[str, Any], proof: Mapping[str, Any]) -> NetworkCard:
    """What the network's file says about it; letters in a class's name that can't be printed become `?`."""
    return NetworkCard(
        architecture=arch,
        keywords={"num_classes": data.num_classes, "in_channels": data.in_channels, "image_size": data.image_size},
        classes=tuple("".join(c if c.isprintable() else "?" for c in name) for name in data.classes),
        mean=data.mean,
        std=data.std,
        in_channels=data.in_channels,
        image_size=data.image_size,
        recipe={
            "dataset": data.name,
            **{name: value for name, value in recipe.items() if name not in _OF_THIS_MACHINE},
        },
        proof=proof,
    )
