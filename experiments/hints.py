"""Commands to type next, with all that they need of a run's own options."""

from __future__ import annotations

import shlex
from pathlib import Path

from base_model import is_file
from training.recipe import Recipe


def command(script: str, recipe: Recipe, *more: str | Path) -> str:
    """A script's command line for the network and the data of a run.

    Args:
        script: its path in the checkout.
        recipe: the run's.
        more: further words.
    """
    words = ["-a", recipe.arch, "--dataset", recipe.dataset]
    words += ["--data-dir", recipe.data_dir] if recipe.data_dir else []
    words += ["--image-size", recipe.image_size] if recipe.image_size else []
    words += ["--hold-out", recipe.hold_out] if recipe.hold_out else []
    return _typed(script, *words, *more)


def comparison(recipe: Recipe, pruned: Path, base: str | Path) -> str:
    """The command that sets a pruned network beside its base: all but a file of one's own is found in these files."""
    words = ["-a", recipe.arch] if is_file(recipe.arch) else []
    return _typed("tools/evaluate.py", *words, pruned, "--against", base)


def _typed(*words: object) -> str:
    return shlex.join(["python", *map(str, words)])
