"""Small images: all of them as uint8 on the training device, augmented a batch at a time there."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from data.augment import CropFlip
from data.batches import Share, Stream, seed_sequence
from data.source import Batch, Data, DataInfo, Normaliser


class Images(NamedTuple):
    """One split, in memory.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N].
    """

    images: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device) -> "Images":
        """The same on `device`."""
        return Images(self.images.to(device), self.labels.to(device))

    def part(self, chosen: np.ndarray) -> "Images":
        """Those of the places [N] that are true."""
        places = torch.from_numpy(chosen)
        return Images(self.images[places], self.labels[places])


class MemoryData(Data):
    """A data set that fits into the device's memory (CIFAR-10: 184 MB).

    Args:
        info: what a network must know of it.
        train, val: its images.
        augment: what is done to training images.
    """

    def __init__(self, info: DataInfo, train: Images, val: Images, augment: CropFlip) -> None:
        super().__init__(info, len(train.labels), len(val.labels))
        shape = (info.in_channels, info.image_size, info.image_size)
        assert train.images.shape[1:] == val.images.shape[1:] == shape, (train.images.shape, val.images.shape, shape)
        assert train.images.dtype == val.images.dtype == torch.uint8
        self._splits = {"train": train, "val": val}
        self._augment = augment
        self._resident: dict[tuple[str, torch.device], Images] = {}

    def _on(self, device: torch.device, split: str) -> Images:
        """The split on `device`, moved there once."""
        device = torch.empty(0, device=device).device  # "cuda" is the same device as "cuda:0"
        key = (split, device)
        if key not in self._resident:
            self._resident[key] = self._splits[split].to(device)
        return self._resident[key]

    def _train_batches(self, shares: list[Share], seed: int, epoch: int, device: torch.device) -> Iterator[Batch]:
        images, labels = self._on(device, "train")
        normalise = Normaliser(self.mean, self.std, device)
        for share in shares:
            # Drawn for the whole global batch, so that an image's moves depend on its place there and not on the rank.
            rng = np.random.default_rng(seed_sequence(Stream.AUGMENTATION, seed, epoch, share.step))
            moves = self._augment.draw(rng, share.global_size)[:, share.offset : share.offset + len(share.indices)]
            # One small copy to the device per step; from memory that isn't pinned, CUDA would wait for the step before.
            plan = torch.from_numpy(np.vstack([share.indices[None], moves]))
            plan = (plan.pin_memory() if device.type == "cuda" else plan).to(device, non_blocking=True)
            augmented = self._augment.apply(images[plan[0]], plan[1:])
            yield Batch(normalise(augmented), labels[plan[0]], share.global_size)

    def _val_batches(self, shares: list[Share], device: torch.device) -> Iterator[Batch]:
        images, labels = self._on(device, "val")
        normalise = Normaliser(self.mean, self.std, device)
        for share in shares:
            part = slice(int(share.indices[0]), int(share.indices[-1]) + 1)  # validation shares are contiguous
            yield Batch(normalise(images[part]), labels[part], share.global_size)
