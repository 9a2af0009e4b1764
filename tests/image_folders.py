"""Folders of images, a sub-folder for each class, as data sets have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def write_random_images(
    root: Path, counts: Mapping[str, int], classes: Iterable[str], size: tuple[int, int], mode: str = "RGB"
) -> Path:
    """Images of random pixels, the same each time, as PNG (lossless).

    Args:
        root: the data set's folder.
        counts: images per class, by the split's name.
        classes: their names.
        size: width and height.
        mode: Pillow's.

    Returns:
        The folder.
    """
    random = np.random.default_rng(0)
    for split, count in counts.items():
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).convert(mode).save(root / split / name / f"{number}.png")
    return root
