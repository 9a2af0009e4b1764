"""The interface of every data set, wherever its images come from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from data.batches import Share, steps_per_epoch, train_shares, val_shares


@dataclass(frozen=True)
class Batch:
    """One process's part of a batch.

    Attributes:
        images: float32 [n, C, H, W], normalised.
        labels: int64 [n].
        global_size: images of the batch over all processes; in validation each batch belongs to one process.
    """

    images: torch.Tensor
    labels: torch.Tensor
    global_size: int


@dataclass(frozen=True)
class DataInfo:
    """What a network must know of a data set.

    Attributes:
        name: the set's name.
        classes: the names of its classes, in the order of their labels.
        in_channels: channels of its images.
        image_size: side of its images, which are square, in pixels.
        mean, std: per channel, of values in 0 ... 1.
        root: the folder that it was read from, if any.
        ignored: files in that folder that aren't images by their suffix.
        left_out: what else is there and isn't read: links to what is elsewhere, pipes.
        why_this_size: how the images' size was chosen, in words, where nobody gave it.
        left_alone: validation images of the set itself, where training images take their place.
    """

    name: str
    classes: tuple[str, ...]
    in_channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    root: str = ""
    ignored: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    why_this_size: str = ""
    left_alone: int = 0


class Data(ABC):
    """Training and validation images of one data set.

    Attributes:
        name, classes, in_channels, image_size, mean, std: as in `DataInfo`.
        num_train: how many training images there are.
        num_val: how many validation images there are.
    """

    def __init__(self, info: DataInfo, num_train: int, num_val: int) -> None:
        self.name = info.name
        self.classes = info.classes
        self.in_channels = info.in_channels
        self.image_size = info.image_size
        self.mean = info.mean
        self.std = info.std
        self._info = info
        self.num_train = num_train
        self.num_val = num_val

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    def describe(self) -> str:
        """What was found, in a line for the user."""
        info = self._info
        names = ", ".join(self.classes[:3]) + (f", ..., {self.classes[-1]}" if self.num_classes > 3 else "")
        size = f"{self.in_channels} x {self.image_size} x {self.image_size}"
        found = (
            f"data: {self.name}{f' in {info.root}' if info.root else ''}: {self.num_classes:,} classes ({names}), "
            f"{self.num_train:,} training and {self.num_val:,} validation images, used at {size}"
        )
        if info.why_this_size:
            found += f" ({info.why_this_size}; --image-size changes that)"
        if info.left_alone:
            found += f"; validation images held out of the training ones, the set's own {info.left_alone:,} unused"
        for paths, why in (
            (info.ignored, "no image suffix"),
            (info.left_out, "a link to what is elsewhere, or no regular file"),
        ):
            if count := len(paths):
                first = ", ".join(paths[:3]) + ", ..." * (count > 3)
                found += f"; {count:,} file{'s' * (count > 1)} ignored, {why} ({first})"
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

        The shares of all ranks make up the batch that one process would get, bit for bit.

        Args:
            epoch: decides the order and the augmentation, together with `seed`.
            batch_size: images per step, all processes together.
            seed: the run's seed.
            device: where the batches are to be.
            start_step: where a resumed epoch goes on; the batches before it are not even decoded.
            rank: this process.
            world_size: how many processes there are.

        Raises:
            InputError: at the call, if batch_size, start_step and world_size don't fit the set.
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
        """Validation images in order, every image once, on exactly one of the ranks; a rank may get no batch at all.

        Args:
            batch_size: images per batch, each on one rank.
            device: where the batches are to be.
            rank: this process.
            world_size: how many processes there are.

        Raises:
            InputError: at the call, if the batch size is below 1, or there is no such rank.
        """
        shares = val_shares(self.num_val, batch_size=batch_size, rank=rank, world_size=world_size)
        return self._val_batches(shares, torch.device(device))

    @abstractmethod
    def _train_batches(self, shares: list[Share], seed: int, epoch: int, device: torch.device) -> Iterator[Batch]: ...

    @abstractmethod
    def _val_batches(self, shares: list[Share], device: torch.device) -> Iterator[Batch]: ...


class Normaliser:
    """uint8 [n, C, H, W] -> float32 (x / 255 - mean) / std, on one device.

    Args:
        mean, std: [C], of values in 0 ... 1.
        device: where the images are.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self._mean = 255 * torch.tensor(mean, device=device).view(-1, 1, 1)  # [C, 1, 1]
        self._std = 255 * torch.tensor(std, device=device).view(-1, 1, 1)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.sub(self._mean).div_(self._std)  # subtracting a float tensor converts
