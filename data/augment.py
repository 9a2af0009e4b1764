"""Random crop and flip of a whole batch at once, on any device."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class CropFlip:
    """Pad with black, crop the old size at a random place, flip left-right in half of the cases.

    The same distribution as torchvision's RandomCrop(size, padding=pad) and RandomHorizontalFlip on the uint8 image.

    Attributes:
        pad: pixels of black on each side.
        flip: whether to flip at all.
    """

    pad: int
    flip: bool

    def draw(self, rng: np.random.Generator, num_images: int) -> np.ndarray:
        """Random moves, int64 [3, num_images]: row and column of the crop in the padded image, 1 to flip it."""
        tops, lefts = rng.integers(0, 2 * self.pad + 1, size=(2, num_images))
        flips = rng.integers(0, 2, size=num_images) if self.flip else np.zeros(num_images, dtype=np.int64)
        return np.stack([tops, lefts, flips])

    def apply(self, images: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
        """The images moved, [n, C, H, W].

        One gather reads every output pixel from its place in the padded image: no loop over images.

        Args:
            images: [n, C, H, W].
            moves: int64 [3, n], as `draw` gives them, on the same device.
        """
        n, channels, height, width = images.shape
        tops, lefts, flips = moves
        padded = F.pad(images, (self.pad,) * 4)
        columns = torch.arange(width, device=images.device)
        columns = torch.where(flips[:, None].bool(), width - 1 - columns, columns) + lefts[:, None]  # [n, W]
        rows = torch.arange(height, device=images.device) + tops[:, None]  # [n, H]
        pixels = rows[:, :, None] * padded.shape[3] + columns[:, None, :]  # [n, H, W]
        pixels = pixels.view(n, 1, height * width).expand(-1, channels, -1)
        return padded.flatten(2).gather(2, pixels).view(n, channels, height, width)
