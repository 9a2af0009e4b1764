"""The interface that every data set has, wherever its images come from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from data.batches import Share, steps_per_epoch, train_shares, val_shares


@dataclass(frozen=True)
class Batch:
    """One process's part of a batch."""

    images: torch.Tensor  # float32 [n, C, H, W], normalised
    labels: torch.Tensor  # int64 [n]
    global_size: int  # images of the batch over all processes; in validation each batch belongs to one process


@dataclass(frozen=True)
class DataInfo:
    """What a network must know of a data set."""

    name: str
    classes: tuple[str, ...]
    in_channels: int
    image_size: int  # pixels; images are square
    mean: tuple[float, ...]  # per channel, of values in 0 ... 1
    std: tuple[float, ...]
    root: str = ""  # the folder that it was read from, if any
    ignored: tuple[str, ...] = ()  # files in that folder that are no images


class Data(ABC):
    """Training and validation images of one data set."""

    def __init__(self, info: DataInfo, num_train: int, num_val: int) -> None:
        self.name = info.name
        self.classes = info.classes
        self.in_channels = info.in_channels
        self.image_size = info.image_size
        self.mean = info.mean
        self.std = info.std
        self._root, self._ignored = info.root, info.ignored
        self.num_train = num_train
        self.num_val = num_val

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def describe(self) -> str:
        """What was found, in a line for a person."""
        names = ", ".join(self.classes[:3]) + (f", ..., {self.classes[-1]}" if self.num_classes > 3 else "")
        size = f"{self.in_channels} x {self.image_size} x {self.image_size}"
        found = (
            f"data: {self.name}{f' in {self._root}' if self._root else ''}: {self.num_classes:,} classes ({names}), "
            f"{self.num_train:,} training and {self.num_val:,} validation images, used at {size}"
        )
        if self._ignored:
            count, first = len(self._ignored), ", ".join(self._ignored[:3])
            found += (
                f"; {count:,} file{'s' * (count > 1)} ignored, no image by the name ({first}{', ...' * (count > 3)})"
            )
        return found

    def steps_per_epoch(self, batch_size: int) -> int:
        """Training steps of one epoch for a batch of `batch_size` images over all processes."""
        return steps_per_epoch(self.num_train, batch_size)

    def train_batches(
        self,
        epoch: int,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> Iterator[Batch]:
        """Augmented batches of one epoch in random order, every image once.

        `batch_size` counts the images of all processes together; the shares of all ranks make up the batch that one
        process would get, bit for bit. `start_step` resumes an epoch: the batches before it are not even decoded.

        Raises InputError, at the call, where batch_size, start_step and world_size don't fit the set.
        """
        shares = train_shares(
            self.num_train,
            epoch,
            batch_size=batch_size,
            seed=seed,
            start_step=start_step,
            rank=rank,
            world_size=world_size,
        )
        return self._train_batches(shares, seed, epoch, torch.device(device))

    def val_batches(
        self, *, batch_size: int, device: torch.device | str, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """Validation images in order, every image once on exactly one of the ranks, `batch_size` on a rank at a time.

        A rank may get no batch at all.
        """
        shares = val_shares(self.num_val, batch_size=batch_size, rank=rank, world_size=world_size)
        return self._val_batches(shares, torch.device(device))

    @abstractmethod
    def _train_batches(self, shares: list[Share], seed: int, epoch: int, device: torch.device) -> Iterator[Batch]: ...

    @abstractmethod
    def _val_batches(self, shares: list[Share], device: torch.device) -> Iterator[Batch]: ...


class Normaliser:
    """uint8 [n, C, H, W] -> float32 (x / 255 - mean) / std, on one device."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self._mean = 255 * torch.tensor(mean, device=device).view(-1, 1, 1)  # [C, 1, 1]
        self._std = 255 * torch.tensor(std, device=device).view(-1, 1, 1)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.sub(self._mean).div_(self._std)  # subtracting a float tensor converts
