"""What a shipped network says of photographs. What `tools/predict.py` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.images import BadImages, middle, read_image
from data.registry import LARGEST_IN_MEMORY
from data.worker import RESIZED
from experiments.weight_files import check_is_weights
from rr import InputError
from rr.export.serving import load_served
from training import logged_on_terminal


@logged_on_terminal()
def predicted(file: Path, paths: Sequence[Path], top: int = 5) -> str:
    """The likeliest classes of each image, by name.

    Args:
        file: the network's file.
        paths: the images.
        top: how many classes.

    Raises:
        InputError: for what a user can put right; all missing and broken images are named at once.
    """
    if file.is_dir():
        check_is_weights(file)
    served = load_served(file)
    card = served.card
    images, broken = [], {}
    absent = [path for path in paths if not path.is_file()]
    for path in (path for path in paths if path not in absent):
        try:
            images.append(as_validated(read_image(str(path), len(card.mean)), card.image_size))
        except BadImages as error:
            broken |= error.found
    if absent or broken:
        raise InputError("; ".join([*map(_why_absent, absent), *([str(BadImages(broken))] if broken else [])]))
    lines = []
    for path, image in zip(paths, images, strict=True):
        shares = served.probabilities(image[None])[0]
        if card.classes and len(card.classes) != len(shares):
            raise InputError(f"{file} names {len(card.classes)} classes, and its network has {len(shares)} outputs")
        names = card.classes or [f"class {place}" for place in range(len(shares))]
        found = shares.topk(min(top, len(shares)))
        lines += [f"{path}:", *(f"  {p:6.1%}  {names[i]}" for p, i in zip(*map(Tensor.tolist, found), strict=True))]
    return "\n".join(lines)


def _why_absent(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder: give the images in it, {path}/*"
    return f"there is no file {path}: check the path"


def as_validated(image: Image.Image, size: int) -> Tensor:
    """An image as in validation: resized, its middle cropped; [C, size, size], values in 0 ... 1."""
    if image.size != (size, size):
        image = middle(image, size, size if size <= LARGEST_IN_MEMORY else round(size * RESIZED))
    pixels = torch.from_numpy(np.array(image, dtype=np.float32) / 255)
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
