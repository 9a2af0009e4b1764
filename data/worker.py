"""Large images: decoded and augmented in worker processes, as is usual for ImageNet."""

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from data.batches import Share, Stream, seed_sequence
from data.folder import ClassFolders, Listing
from data.images import BadImages, middle, read_image, with_others
from data.source import Batch, Data, DataInfo, Normaliser

LAST_STEP = 30  # seconds that a worker goes on after SIGTERM: the training process ends its step, and then the worker
RESIZED = 256 / 224  # to evaluate: the shorter side before the crop, over the crop


class ImageFolderData(Data):
    """Images on disk: RandomResizedCrop and flip to train; Resize to 256/224 of the size and CenterCrop to evaluate.

    Args:
        info: what a network must know of the set.
        folders: its files.
        workers: how many processes decode.
    """

    def __init__(self, info: DataInfo, folders: ClassFolders, workers: int) -> None:
        super().__init__(info, len(folders.train.files), len(folders.val.files))
        size = info.image_size
        self._folders = folders
        self._workers = workers
        self._train_transform = v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()])
        self._val_transform = partial(middle, size=size, side=round(size * RESIZED))

    def _train_batches(self, shares: list[Share], seed: int, epoch: int, device: torch.device) -> Iterator[Batch]:
        source = _DecodedBatches(self._folders.train, self._train_transform, self.in_channels, (seed, epoch))
        return self._load(source, shares, device)

    def _val_batches(self, shares: list[Share], device: torch.device) -> Iterator[Batch]:
        source = _DecodedBatches(self._folders.val, self._val_transform, self.in_channels, None)
        return self._load(source, shares, device)

    def _load(self, source: "_DecodedBatches", shares: list[Share], device: torch.device) -> Iterator[Batch]:
        loader = DataLoader(
            source,
            batch_size=None,  # an item of the source is a whole batch
            sampler=[share.indices for share in shares],
            num_workers=min(self._workers, len(shares)),
            pin_memory=device.type == "cuda",
            worker_init_fn=_outlive_a_stop,
            generator=torch.Generator(),  # its own: otherwise it would draw from the training process's random numbers
        )
        normalise = Normaliser(self.mean, self.std, device)
        for share, loaded in zip(shares, loader, strict=True):
            if isinstance(loaded, dict):
                raise with_others(loaded, self._folders.train.files + self._folders.val.files)
            images, labels = (tensor.to(device, non_blocking=True) for tensor in loaded)
            yield Batch(normalise(images), labels, share.global_size)


def _outlive_a_stop(_: int) -> None:
    """Ctrl-C and SLURM's SIGTERM reach every process; the training one still needs this one's images for its last step.

    SIGTERM is also how a worker that doesn't end is ended, so it is put off and not ignored.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_soon)


def _end_soon(*_: object) -> None:
    """End after some seconds, or at once when the signal comes again: without an error, which would be told of."""
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, lambda *_: os._exit(0))
    signal.alarm(LAST_STEP)


class _DecodedBatches(Dataset):
    """source[indices] -> (images uint8 [n, C, H, W], labels int64 [n]), or what is wrong with files, by path.

    A dict and not an exception, because DataLoader would wrap an exception in a page of the worker's traceback.
    """

    def __init__(
        self,
        listing: Listing,
        transform: Callable[[Image.Image], Image.Image],
        channels: int,
        place: tuple[int, int] | None,
    ) -> None:
        self._listing = listing
        self._transform = transform
        self._channels = channels
        self._place = place  # (seed, epoch) of random transforms

    def __getitem__(self, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor] | dict[str, str]:
        images, found = [], {}
        for index in indices:
            try:
                images.append(self._read(int(index)))
            except BadImages as error:
                found |= error.found
        if found:
            return found
        return torch.stack(images), torch.from_numpy(self._listing.labels[indices])

    def _read(self, index: int) -> torch.Tensor:
        image = read_image(self._listing.files[index], self._channels)
        # Torchvision draws from torch's global random numbers. They are seeded per image, so that the crop depends on
        # neither the worker nor the images before, and put back, as with no workers this is the training process.
        with torch.random.fork_rng(devices=[]):
            if self._place is not None:
                seed = seed_sequence(Stream.SAMPLE, *self._place, index).generate_state(1)[0]
                torch.default_generator.manual_seed(int(seed))
            return TF.pil_to_tensor(self._transform(image))
