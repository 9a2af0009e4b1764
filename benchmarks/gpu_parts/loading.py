"""Images a second that the loader gives to one process, augmentation included; a GPU's images are to be the CPU's."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.gpu_parts.clock import milliseconds
from benchmarks.gpu_parts.images import image_folder
from benchmarks.gpu_parts.setting import Figures, Setting
from data import Batch, Data, SyntheticSize, load_data
from training import init_world

BAR = 21_000  # images a second: 64 of them in 3 ms


def measure(setting: Setting) -> Figures:
    """An epoch of CIFAR-10 (or of as many synthetic images) at batch 64, better of two, and a batch compared."""
    device = init_world(setting.device).device
    data = images_of(setting)
    steps = data.steps_per_epoch(64)

    def load_epoch() -> None:
        for _ in data.train_batches(0, batch_size=64, seed=0, device=device):
            pass

    best = min(milliseconds(load_epoch, device) for _ in range(2))
    on_cpu, there = (first_batch(data, place) for place in (torch.device("cpu"), device))
    speed = data.num_train / (best / 1000)
    return {
        "data": data.name,
        "images": data.num_train,
        "ms_of_a_batch": best / steps,
        "images_per_s": speed,
        "bars": {f"{BAR} images a second": speed >= BAR},
        "largest_difference_from_the_cpu": float((there.images.cpu() - on_cpu.images).abs().max()),
        "labels_are_equal": torch.equal(there.labels.cpu(), on_cpu.labels),
    }


def images_of(setting: Setting) -> Data:
    """CIFAR-10 where it is given."""
    if setting.cifar is None:
        size = SyntheticSize(train=500 if setting.dry_run else 50_000, val=10)
        return load_data("synthetic", synthetic_size=size)
    folder = image_folder(setting.cifar, Path(setting.output) / "runs" / "cifar10_jpeg")
    return load_data("folder", data_dir=folder)


def first_batch(data: Data, device: torch.device) -> Batch:
    """The first batch of an epoch."""
    return next(iter(data.train_batches(0, batch_size=64, seed=0, device=device)))
