"""What a run does: one frozen dataclass, whose fields are the command line's options, and a ready one per network."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from base_model import folder_name, model_info, model_names
from data import Data
from training.options import check_choices

FAST_LR = ((12, 0.02), (25, 0.05))  # (epochs, learning rate), as measured: results/short_schedules.json


def _option(help: str, **metadata: Any) -> dict[str, Any]:
    return {"help": help, **metadata}


@dataclass(frozen=True)
class Recipe:
    """All that decides a training run. Raises ValueError, with the fix in the message, on a value that can't be."""

    arch: str = field(metadata=_option("network", flags=("-a",)))
    dataset: str = field(metadata=_option("data set, a name of data.dataset_names()"))
    data_dir: str | None = field(default=None, metadata=_option("folder of the data; none: the data set's usual one"))
    image_size: int = field(
        default=0,
        metadata=_option("height and width of the images; 0: our network's own, the data's own for others"),
    )
    output_dir: str = field(default="train", metadata=_option("folder that the run writes to"))

    epochs: int = field(default=240, metadata=_option("passes over the training data"))
    batch_size: int = field(default=64, metadata=_option("examples per step, all processes together"))
    accumulate: int = field(default=1, metadata=_option("micro-batches that a process cuts its part of a step into"))
    max_steps: int = field(
        default=0, metadata=_option("stop after so many steps, on the full run's learning rates; 0: no limit")
    )
    seed: int = field(default=0, metadata=_option("seed of the weights, of the data's order and of its augmentation"))

    lr: float = field(default=0.1, metadata=_option("learning rate after the warm-up"))
    schedule: str = field(
        default="cosine", metadata=_option("how the learning rate falls", choices=("cosine", "step", "linear"))
    )
    milestones: tuple[int, ...] = field(default=(), metadata=_option("schedule step: epochs after which it falls"))
    gamma: float = field(default=0.1, metadata=_option("schedule step: factor at each milestone"))
    min_lr: float = field(default=0.0, metadata=_option("schedule cosine or linear: learning rate at the end"))
    warmup_epochs: int = field(
        default=0, metadata=_option("epochs of warm-up; the schedule's own time begins after it")
    )
    warmup: str = field(
        default="linear",
        metadata=_option("rise to the full rate, or hold a part of it", choices=("linear", "constant")),
    )
    warmup_factor: float = field(default=0.1, metadata=_option("part of the learning rate at the warm-up's start"))

    momentum: float = field(default=0.9, metadata=_option("momentum of SGD"))
    nesterov: bool = field(default=False, metadata=_option("Nesterov's momentum"))
    weight_decay: float = field(default=1e-4, metadata=_option("on conv and linear weights alone"))
    bias_lr_factor: float = field(default=2.0, metadata=_option("learning rate of biases, relative to the others'"))
    label_smoothing: float = field(default=0.0, metadata=_option("part of the target spread over all classes"))
    distill: float = field(
        default=0.0,
        metadata=_option("share of the loss that the trained network the run starts from sets, as a teacher; 0: none"),
    )
    distill_until: float = field(
        default=1.0,
        metadata=_option("distill: share of the run after which the teacher leaves, and the labels alone set the loss"),
    )
    temperature: float = field(
        default=4.0, metadata=_option("distill: what the teacher's and the student's logits are divided by")
    )

    device: str = field(default="auto", metadata=_option("auto, cpu, cuda, cuda:1, mps"))
    amp: bool = field(default=False, metadata=_option("bfloat16 autocast"))
    channels_last: bool = field(default=True, metadata=_option("channels-last memory format"))
    compile: bool = field(
        default=False, metadata=_option("torch.compile the network; with --narrow once all is narrowed")
    )
    workers: int | None = field(
        default=None, metadata=_option("loader processes or threads; none: the data set's choice")
    )

    val_interval: int = field(default=5, metadata=_option("epochs between evaluations"))
    val_last: int = field(default=10, metadata=_option("evaluate after each of so many last epochs"))
    log_interval: int = field(default=100, metadata=_option("steps between two looks at loss and speed"))
    save_interval: int = field(default=0, metadata=_option("epochs between weight files epoch-{e}.hdf5; 0: none"))
    checkpoint_interval: int = field(
        default=1000, metadata=_option("steps between checkpoints inside an epoch; 0: only after each epoch")
    )

    def __post_init__(self) -> None:
        check_choices(self)
        for name in _COUNTS:
            self._require(name, getattr(self, name) >= 1, "must be at least 1")
        for name in _NOT_NEGATIVE:
            self._require(name, 0 <= getattr(self, name) < math.inf, "must be 0 or more")
        for name in ("gamma", "warmup_factor"):
            self._require(name, 0 < getattr(self, name) <= 1, "must be in (0, 1]")
        for name in ("momentum", "label_smoothing"):
            self._require(name, 0 <= getattr(self, name) < 1, "must be in [0, 1)")
        for name in ("lr", "temperature"):
            self._require(name, 0 < getattr(self, name) < math.inf, "must be greater than 0")
        self._require("distill", 0 <= self.distill <= 1, "must be from 0 to 1")
        self._require("distill_until", 0 < self.distill_until <= 1, "must be in (0, 1]")
        self._require("distill_until", self.distill_until == 1 or self.distill > 0, "needs a distill greater than 0")
        self._require("min_lr", self.min_lr <= self.lr, f"must not pass lr ({self.lr})")
        self._require("accumulate", self.accumulate <= self.batch_size, f"must not pass batch_size ({self.batch_size})")
        self._require("warmup_epochs", self.warmup_epochs < self.epochs, f"must be less than epochs ({self.epochs})")
        self._require("nesterov", not self.nesterov or self.momentum > 0, "needs a momentum greater than 0")
        self._require("workers", self.workers is None or self.workers >= 0, "must be none, 0 or more")
        self._require("output_dir", bool(self.output_dir), "name a folder")
        rising = list(self.milestones) == sorted(set(self.milestones))
        self._require("milestones", rising and all(m > 0 for m in self.milestones), "must be rising epochs above 0")
        if self.schedule == "step":
            reached = len(self.milestones) > 0 and self.milestones[-1] < self.epochs
            fix = f"schedule 'step' needs at least one, all below epochs ({self.epochs}); or take schedule 'cosine'"
            self._require("milestones", reached, fix)

    @property
    def sgd(self) -> dict[str, float]:
        """What parameter groups are made with: `rr.parameter_groups(model, **recipe.sgd)`."""
        names = ("lr", "momentum", "weight_decay", "bias_lr_factor")
        return {name: getattr(self, name) for name in names}

    def _require(self, name: str, fulfilled: bool, what: str) -> None:
        if not fulfilled:
            raise ValueError(f"{name} is {getattr(self, name)!r}: {what}")


_COUNTS = ("epochs", "batch_size", "accumulate", "val_interval", "log_interval")
_NOT_NEGATIVE = (
    *("image_size", "max_steps", "seed", "warmup_epochs", "val_last", "save_interval", "checkpoint_interval"),
    *("weight_decay", "bias_lr_factor", "min_lr"),
)


def file_attributes(recipe: Recipe, data: Data) -> dict[str, str | int]:
    """What a weight file says about its network, as much as is needed to build it again."""
    return {
        "arch": recipe.arch,
        "dataset": data.name,
        "num_classes": data.num_classes,
        "in_channels": data.in_channels,
        "image_size": data.image_size,
    }


def base_recipe(arch: str, dataset: str | None = None) -> Recipe:
    """How the network to be pruned is trained, written to `{arch}_train`.

    CIFAR-10: the paper's settings (section 4.1: lr 0.1, 240 epochs, x0.1 at 120 and 180, batch 64). ImageNet: the usual
    90 epochs at batch 256. MNIST, and networks from anywhere: our choice.

    dataset: the data's name; for our own networks it changes no other setting, and None is their usual one. Raises
    ValueError where a network from anywhere has none.
    """
    output_dir = f"{folder_name(arch)}_train"
    if arch not in model_names():
        epochs, batch_size = (90, 256) if _given(arch, dataset) == "imagenet" else (120, 128)
        return Recipe(arch, dataset, output_dir=output_dir, lr=0.05, epochs=epochs, batch_size=batch_size)
    usual = model_info(arch).dataset
    common: dict[str, Any] = {"arch": arch, "dataset": dataset or usual, "output_dir": output_dir, "val_interval": 5}
    if usual == "mnist":
        return Recipe(**common, lr=0.01, epochs=60, batch_size=64, schedule="cosine")
    if arch == "smi1":
        return Recipe(**common, lr=0.1, epochs=90, batch_size=256, schedule="cosine")
    if usual == "imagenet":
        return Recipe(**common, lr=0.1, epochs=90, batch_size=256, schedule="step", milestones=(30, 60, 80))
    return Recipe(**common, lr=0.1, epochs=240, batch_size=64, schedule="step", milestones=(120, 180))


def resrep_recipe(arch: str, dataset: str | None = None) -> Recipe:
    """How the network is pruned with ResRep, written to `resrep_models/{arch}_train`.

    lr 0.01, cosine to 0; CIFAR-10 480 epochs at batch 64, ImageNet 180 epochs at batch 256 (sections 4.1 and 4.2);
    networks from anywhere, but on ImageNet: 240 epochs at batch 128. `dataset` is as in `base_recipe`.
    """
    if arch in model_names():
        usual = model_info(arch).dataset
        epochs, batch_size = {"imagenet": (180, 256), "mnist": (120, 64)}.get(usual, (480, 64))
    else:
        usual = _given(arch, dataset)
        epochs, batch_size = (180, 256) if usual == "imagenet" else (240, 128)
    return Recipe(
        arch=arch,
        dataset=dataset or usual,
        output_dir=f"resrep_models/{folder_name(arch)}_train",
        lr=0.01,
        schedule="cosine",
        epochs=epochs,
        batch_size=batch_size,
        val_interval=2,
        save_interval=5,
    )


def fast_recipe(arch: str, dataset: str | None = None, epochs: int | None = None) -> Recipe:
    """How the network is pruned in a short run (`rr.recipes.fast_config`) of so many epochs (12), for any network.

    Cosine to 0 from 0.02 for 12 epochs or fewer, from 0.05 for 25 or more, from between for a length between: a longer
    run at the lower rate overfits (docs/experiments.md). Batch 128, ImageNet 256; weight decay 5e-4 for our CIFAR
    networks, 1e-4 for all others. The rest is as in `resrep_recipe`, and so is `dataset`.
    """
    recipe = resrep_recipe(arch, dataset)
    usual = model_info(arch).dataset if arch in model_names() else recipe.dataset
    epochs = 12 if epochs is None else epochs
    return replace(
        recipe,
        lr=round(float(np.interp(epochs, *zip(*FAST_LR, strict=True))), 4),
        schedule="cosine",
        epochs=epochs,
        batch_size=256 if usual == "imagenet" else 128,
        weight_decay=5e-4 if usual == "cifar10" else 1e-4,
    )


def _given(arch: str, dataset: str | None) -> str:
    if dataset is None:
        raise ValueError(f"{arch} has no usual data set: name one with --dataset, imagenet or folder, say")
    return dataset
