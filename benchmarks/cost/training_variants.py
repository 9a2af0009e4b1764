"""One network in training in five variants, at the widths of a pruning run.

plain: the unpruned network; no narrowing: with compactors, at full width; rows: with compactors, dead channels taken
out; full: the same, compactors folded where enough is dead, and retired at the target; narrow plain: the floor, a plain
network (with its BNs) of the widths that the dead units leave.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from base_model import build_any
from benchmarks.cost.timing import seconds
from benchmarks.cost.training_figures import FLOOR, FULL, FULL_WIDTH, PLAIN
from experiments.tuning.narrowed import RandomDeaths, mask
from rr import ResRepConfig, ResRepPruner, paper_config, param_groups
from rr.conversion import convert
from rr.errors import InputError
from rr.graph import LayerKind

TARGETS = {"torchvision/resnet50": 0.455, "sres50": 0.455}
EXCLUDE = {"torchvision/resnet50": ("conv1",), "sres50": ("conv1.*",)}  # as in the paper, which prunes the blocks alone
OTHERS_TARGET = 0.47
NEVER = 10**9
# Small, so that the networks stay near where they begin for all rounds: their values should not matter.
SGD = {"lr": 1e-5, "momentum": 0.9, "weight_decay": 1e-4}


@dataclass(frozen=True)
class Setting:
    """One network and how it is trained and timed.

    Attributes:
        model: its name.
        precision: 'float32', or 'bfloat16' for autocast.
        compactors: 'dense' or 'diagonal'.
        batch: images in a step.
        image_size: in pixels.
        width_multiple: what the widths are multiples of.
        points: of the schedule, full width and target among them.
        rounds: timed steps of each variant at each point.
        warmup: steps of each variant before those.
        threads: of torch.
        device: where it is trained.

    Raises:
        InputError: if a number is too small, or the precision is unknown.
    """

    model: str
    precision: str = "bfloat16"
    compactors: str = "dense"
    batch: int = 64
    image_size: int = 32
    width_multiple: int = 8
    points: int = 10
    rounds: int = 10
    warmup: int = 2
    threads: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        least = {"batch": 2, "image_size": 1, "width_multiple": 1, "points": 2, "rounds": 1, "warmup": 1, "threads": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise InputError(f"{name} must be at least {value}, not {getattr(self, name)}")
        if self.precision not in ("float32", "bfloat16"):
            raise InputError(f"precision must be 'float32' or 'bfloat16', not {self.precision!r}")

    @property
    def config(self) -> ResRepConfig:
        """What the pruner is to do; it updates no masks by itself."""
        return paper_config(
            flops_target=TARGETS.get(self.model, OTHERS_TARGET),
            exclude=EXCLUDE.get(self.model, ()),
            width_multiple=self.width_multiple,
            compactors=self.compactors,
            mask_interval=NEVER,
        )


class Training:
    """A network with its optimiser and one batch of random images; `step` trains it for a step.

    Args:
        setting: how it is trained.
        model: the network.
        pruner: its pruner, if it has one.
    """

    def __init__(self, setting: Setting, model: nn.Module, pruner: ResRepPruner | None = None) -> None:
        self.model = model.to(setting.device, memory_format=torch.channels_last).train()
        self.pruner = pruner
        groups = pruner.param_groups(**SGD) if pruner else param_groups(model, **SGD)
        self.optimizer = torch.optim.SGD(groups, lr=SGD["lr"])
        if pruner:
            pruner.attach(self.optimizer)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(setting.batch, 3, setting.image_size, setting.image_size, generator=generator)
        self.images = images.to(setting.device).contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(10, (setting.batch,), generator=generator).to(setting.device)
        self.device = setting.device
        self.amp = setting.precision == "bfloat16"

    def step(self) -> None:
        """Forward, backward and the optimiser's step, with the pruner's hooks where there are any."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.amp):
            scores = self.model(self.images)
        F.cross_entropy(scores.float(), self.labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def training_of(variant: str, setting: Setting, *, at_target: bool = False) -> Training:
    """A variant in training.

    Args:
        variant: one of `VARIANTS`; the floor is for the target only.
        setting: the network, and how it is trained.
        at_target: at the widths of the target, else at full width.
    """
    torch.manual_seed(0)
    model = build_any(setting.model, in_channels=3).to(memory_format=torch.channels_last)
    if variant == PLAIN:
        return Training(setting, model)
    config = setting.config
    example = torch.zeros(1, 3, setting.image_size, setting.image_size)
    config = config.with_settings(narrow={FULL_WIDTH: "no", FULL: "full"}.get(variant, "rows"))
    pruner = ResRepPruner(model, example, config)
    training = Training(setting, model, pruner)
    if variant == FULL_WIDTH or not at_target:
        return training
    kill(training, RandomDeaths(pruner).alive_at(1.0))
    return Training(setting, narrow_plain(pruner)) if variant == FLOOR else training


def kill(training: Training, alive: np.ndarray) -> float:
    """Let some units die and leave the network.

    With narrow='full' there is a training step in between, in which what the folds need is measured.

    Args:
        training: the network in training.
        alive: [num_units] of bool, the units that stay.

    Returns:
        The seconds that narrowing takes.
    """
    mask(training.pruner, alive)
    taken = seconds(training.pruner.narrow)
    if training.pruner.config.narrowing.mode == "full":
        training.step()
        taken += seconds(training.pruner.narrow)
    return taken


def narrow_plain(pruner: ResRepPruner) -> nn.Module:
    """A plain network of the widths that a conversion leaves now, as for training from scratch: BNs aren't folded."""
    slim, _ = convert(pruner.live, pruner.example_inputs, prove=False)
    modules = dict(pruner.model.named_modules())
    for layer in pruner.graph.layers.values():
        if not layer.kind.has_width or layer.norm is None:
            continue
        narrow, norm = slim.get_submodule(layer.name), modules[layer.norm]
        width = narrow.out_features if layer.kind is LayerKind.LINEAR else narrow.out_channels
        fresh = (nn.BatchNorm1d if layer.kind is LayerKind.LINEAR else nn.BatchNorm2d)(width, norm.eps, norm.momentum)
        left = slim.get_submodule(layer.norm)  # an activation that the BN module runs itself, or nothing
        owner, _, name = layer.norm.rpartition(".")
        setattr(slim.get_submodule(owner), name, fresh if isinstance(left, nn.Identity) else nn.Sequential(fresh, left))
        if modules[layer.name].bias is None:
            narrow.bias = None
    return slim
