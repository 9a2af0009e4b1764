"""The weights that a pruning run starts from: which file, and whether it was trained on the same images."""

from __future__ import annotations

from pathlib import Path

from base_model import model_names
from experiments.hints import command
from experiments.recipes import base_folder
from experiments.run import DOWNLOAD
from experiments.starts import PruningStart
from rr import InputError
from training import Recipe
from training.run_folder import FINISH_WEIGHTS, stored_recipe


def base_weights_of(recipe: Recipe, start: PruningStart) -> str:
    """The file to start from, or `default`.

    Raises:
        InputError: if it is missing, with the command that makes it.
    """
    if start.base_weights == DOWNLOAD:
        return DOWNLOAD
    path = base_file(recipe, start)
    if path.is_file():
        return str(path)
    fix = f"make them with `{command('train_base_model.py', recipe)}`, or give a file with --weights"
    if start.base_weights is not None:
        fix = "check --weights"
    elif is_from_torchvision(recipe.arch):
        fix = f"make them with `python transform_torchvision.py -a {recipe.arch}`, or give a file with --weights"
    elif recipe.arch not in model_names():
        fix += f", or '{DOWNLOAD}' for what torchvision or timm has to download"
    raise InputError(f"the base weights {path} are missing: {fix}")


def base_file(recipe: Recipe, start: PruningStart) -> Path:
    """The file to start from, there or not: that of --weights, else the one that its own script writes."""
    if start.base_weights is not None:
        return Path(start.base_weights)
    if is_from_torchvision(recipe.arch):
        return Path(f"torchvision_res{recipe.arch.removeprefix('sres')}.hdf5")
    return Path(base_folder(recipe.arch)) / FINISH_WEIGHTS


def is_from_torchvision(arch: str) -> bool:
    """Whether it is one of our networks whose base weights are torchvision's."""
    return arch in model_names() and arch.startswith("sres")


def of_other_data(base: str, recipe: Recipe) -> str | None:
    """What to say where base weights were trained on other data than they are pruned on; None where nobody knows.

    It can be meant (a copy of the data in another form), so it is no error.
    """
    trained_on = stored_recipe(Path(base).parent) if base != DOWNLOAD else None
    if trained_on is None:
        return None
    names = ("dataset", "data_dir", "image_size")
    one, other = ({name: of.get(name) for name in names} for of in (trained_on, vars(recipe)))
    is_same_size = one["image_size"] in (None, other["image_size"])
    if one["dataset"] is None:
        return None
    if one["dataset"] == other["dataset"] and same_folder(one["data_dir"], other["data_dir"]) and is_same_size:
        if recipe.hold_out <= trained_on.get("hold_out", 0):
            return None
        return f"the base weights {base} were trained on images that this run holds out (--hold-out {recipe.hold_out})"
    there, here = (
        " ".join(f"--{name.replace('_', '-')} {value}" for name, value in of.items() if value) for of in (one, other)
    )
    return f"the base weights {base} were trained with {there}, and this run is with {here}"


def same_folder(one: str | None, other: str | None) -> bool:
    """Whether two data folders are one; a set's usual one, None, counts as any."""
    return one is None or other is None or Path(one).resolve() == Path(other).resolve()
