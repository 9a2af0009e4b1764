"""Recipes by network: how it is trained, and how the method prunes it, as in the paper or in a short run.

Nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from base_model import folder_name, model_info, model_names
from rr import InputError, ResRepConfig, Share, cut_config, fast_config, paper_config
from rr.settings import settings_of
from training.options import option_names
from training.recipe import Recipe

PAPER_NETWORKS = ("src56", "sres50")  # of the paper's two experiments, sections 4.1 and 4.2
FAST_LR = ((12, 0.02), (25, 0.05))  # (epochs, learning rate), as measured: results/short_schedules.json


def base_folder(arch: str) -> str:
    """Where the network to be pruned is written, unless `--output-dir` says otherwise."""
    return f"{folder_name(arch)}_train"


def pruning_folder(arch: str) -> str:
    """Where the pruning run is written, unless `--output-dir` says otherwise."""
    return f"resrep_models/{base_folder(arch)}"


def resrep_config(arch: str, *, fast: bool = False, is_cut: bool = False) -> ResRepConfig:
    """ResRep's settings for the network `arch`, the paper's where it has that network.

    ResNets for ImageNet keep 45.5% of the MACs and their stem whole ("the first two convs of every block" are pruned);
    all others of this project keep 47.1%, networks from anywhere (`timm/NAME`, `FILE.py:FUNCTION`) half.

    Args:
        arch: the network's name.
        fast: the settings of a short run, with as many MACs kept.
        is_cut: those of a run that begins with the cut.
    """
    build = cut_config if is_cut else fast_config if fast else paper_config
    if "/" in arch or ":" in arch:
        return build(flops_target=0.5)
    if arch.startswith("sres"):
        return build(flops_target=0.455, exclude=("conv1.*",))
    return build(flops_target=0.471)


def base_recipe(arch: str, dataset: str | None = None) -> Recipe:
    """How the network to be pruned is trained, written to `{arch}_train`.

    CIFAR-10: the paper's settings (section 4.1: lr 0.1, 240 epochs, x0.1 at 120 and 180, batch 64). ImageNet: the usual
    90 epochs at batch 256. MNIST, and networks from anywhere: our choice.

    Args:
        arch: the network's name.
        dataset: the data's name; for our own networks it changes no other setting, and None is their usual one.

    Raises:
        InputError: if a network from anywhere has none.
    """
    output_dir = base_folder(arch)
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
        return Recipe(
            **common,
            lr=0.1,
            epochs=90,
            batch_size=256,
            schedule="step",
            milestones=(Share(1 / 3), Share(2 / 3), Share(8 / 9)),
        )
    return Recipe(**common, lr=0.1, epochs=240, batch_size=64, schedule="step", milestones=(Share(0.5), Share(0.75)))


def resrep_recipe(arch: str, dataset: str | None = None) -> Recipe:
    """How the network is pruned with ResRep, written to `resrep_models/{arch}_train`.

    lr 0.01, cosine to 0; CIFAR-10 480 epochs at batch 64, ImageNet 180 epochs at batch 256 (sections 4.1 and 4.2);
    networks from anywhere, except on ImageNet: 240 epochs at batch 128.

    Args:
        arch, dataset: as in `base_recipe`.

    Raises:
        InputError: as `base_recipe` does.
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
        output_dir=pruning_folder(arch),
        lr=0.01,
        schedule="cosine",
        epochs=epochs,
        batch_size=batch_size,
        val_interval=2,
        save_interval=5,
    )


def fast_recipe(arch: str, dataset: str | None = None, epochs: int | None = None) -> Recipe:
    """How a network, whichever it is, is pruned in a short run (`rr.fast_config`).

    Cosine to 0 from 0.02 for 12 epochs or fewer, from 0.05 for 25 or more, from a rate in between for a length in
    between: a longer run at the lower rate overfits (docs/log.md). Batch 128, ImageNet 256; weight decay 5e-4
    for our CIFAR networks, 1e-4 for all others. The rest is as in `resrep_recipe`.

    Args:
        arch, dataset: as in `base_recipe`.
        epochs: the run's length; None: 12.

    Raises:
        InputError: as `base_recipe` does.
    """
    recipe = resrep_recipe(arch, dataset)
    usual = model_info(arch).dataset if arch in model_names() else recipe.dataset
    epochs = 12 if epochs is None else epochs
    return replace(
        recipe,
        lr=_fast_lr(epochs),
        schedule="cosine",
        epochs=epochs,
        batch_size=256 if usual == "imagenet" else 128,
        weight_decay=5e-4 if usual == "cifar10" else 1e-4,
    )


def _fast_lr(epochs: int) -> float:
    """0.02 for 12 epochs or fewer, 0.05 for 25 or more, on the line between them for a length in between."""
    (short, low), (long, high) = FAST_LR
    way = min(max((epochs - short) / (long - short), 0.0), 1.0)
    return round(low + way * (high - low), 4)


def _given(arch: str, dataset: str | None) -> str:
    if dataset is None:
        raise InputError(f"{arch} has no usual data set: name one with --dataset, imagenet or folder, say")
    return dataset


def typed_as(*settings: Any) -> dict[str, str]:
    """How these settings are typed, for messages; where `--death-steps` sets the penalty, that is what is named."""
    names = option_names(*settings)
    if any(getattr(part, "decay", None) and part.decay.death_steps for part in settings):
        names["masked_penalty"] = f"{names['death_steps']} (as a penalty)"
    return names


def of_this_version(stored: dict[str, Any]) -> dict[str, Any]:
    """The settings in an older run's run.json as this version has them, so that the run can be continued.

    Raises:
        InputError: if it was run with a setting that no longer exists.
    """
    names = {alias: setting.name for setting in settings_of(ResRepConfig()) for alias in setting.aliases}
    found = {names.get(name, name): value for name, value in stored.items()}
    if found.get("masked_penalty") is not None and "death_steps" in found:
        found["death_steps"] = 0  # the penalty follows from it
    factor, share = found.pop("compactor_lr_factor", 1.0), found.pop("fold_share", 1.0)
    if factor != 1.0 or (share != 1.0 and found.get("narrow") == "full"):
        raise InputError(
            f"the run was begun with compactor_lr_factor {factor:g} and fold_share {share:g}, which can no longer "
            "be set: finish it with the version that began it, or start it again with '-c fs'"
        )
    return found
