"""A file of ours in another format, checked in its own runtime. What `tools/export.py` does."""

from __future__ import annotations

import argparse
import json
import logging

import torch

from base_model import build_any
from experiments.quantising import check_int8, quantised
from experiments.testing import arch_of
from experiments.weight_files import check_is_done, check_is_weights
from rr import InputError, NetworkCard
from rr.export import check_export, exported_program
from rr.export.runtimes import SUFFIXES, runner, write_program
from rr.weights import WeightFile, network_in, read_weights
from rr.whole_files import write_text_whole
from training import logged_on_terminal

logger = logging.getLogger(__name__)


@logged_on_terminal()
def exported(options: argparse.Namespace) -> tuple[str, bool]:
    """Export, check, and write what the check found beside the file.

    Args:
        options: those of `tools/export.py`.

    Returns:
        What was found, as text, and whether the exported network computes what the model computes; one in int8 isn't
        held to that, its accuracy is told.

    Raises:
        InputError: for what a user can put right.
    """
    check_int8(options)
    check_is_weights(options.weights)
    suffix = f"{'.int8' if options.int8 else ''}{SUFFIXES[options.format]}"
    path = options.output or options.weights.with_suffix(suffix)
    if path.suffix != SUFFIXES[options.format]:
        raise InputError(f"--output {path} must end in {SUFFIXES[options.format]}")
    file = read_weights(options.weights)
    check_is_done(options.weights, file)
    arch = arch_of(options, file.attributes)
    card = card_of(file, arch)
    channels, size = card.in_channels or 3, options.image_size or card.image_size or 224
    model = network_in(file, lambda: build_any(arch, **card.keywords), str(options.weights)).float().eval()
    logger.info("exporting %s to %s", arch, path)
    program, any_size = exported_program(model, torch.zeros(2, channels, size, size))
    if options.int8:
        return quantised(model, program, card, size, path, options), True
    write_program(path, options.format, program, card)
    logger.info("running %s to compare it with the network", path)
    check = check_export(model, runner(path, options.format), channels, size, any_size)
    beside = path.with_name(f"{path.name}.json")
    write_text_whole(beside, json.dumps({"file": path.name, "any_size": any_size, **check.as_dict()}, indent=2) + "\n")
    lines = [
        str(check),
        f"{path}: any batch, {'any size of images' if any_size else f'images of {size} x {size} alone'}; "
        f"the figures: {beside}",
    ]
    if not card.classes:
        lines.append(f"{options.weights} has no names of classes: export the .safetensors beside it to have them")
    return "\n".join(lines), check.is_equal


def card_of(file: WeightFile, arch: str) -> NetworkCard:
    """The card in a `.safetensors` file, else one of what the file's attributes say."""
    if file.card is not None:
        return file.card
    attributes = file.attributes
    names = ("num_classes", "in_channels", "image_size")
    sizes = {name: int(attributes[name]) for name in names if name in attributes}
    shape = {name: sizes[name] for name in names[1:] if name in sizes}
    return NetworkCard(architecture=arch, keywords=sizes, **shape)
