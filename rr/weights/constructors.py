"""Full networks by the name that a file gives, from a short list of places: no other code of a file's choice is run."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import nn

from rr.errors import InputError

# What a file may have called: its keywords alone, of these types, and never a download or another file.
_KEYWORDS = ("num_classes", "in_channels", "image_size")
_LARGEST = 100_000  # of a keyword: a file must not ask for a classifier that no memory holds
_GIVE_MODEL = "give the full network, load_pruned(FILE, model)"


def build_named(name: str, keywords: Mapping[str, Any]) -> nn.Module:
    """The full network, freshly initialised.

    Args:
        name: `torchvision/NAME`, `timm/NAME`, or a name of this project's networks, where `base_model` is importable.
        keywords: some of `num_classes`, `in_channels` and `image_size`.

    Raises:
        InputError: for another name or keyword, or where the package is missing; the message says what to give.
    """
    for keyword, value in keywords.items():
        if keyword not in _KEYWORDS or type(value) is not int or not 1 <= value <= _LARGEST:
            raise InputError(f"{name} can't be built with {keyword}={value!r} because a file says so: {_GIVE_MODEL}")
    source, _, rest = name.partition("/")
    if source == "torchvision" and rest:
        return _from_torchvision(rest, keywords)
    if source == "timm" and rest:
        return _from_timm(rest, keywords)
    if not name.isidentifier():  # FILE.py:FUNCTION, hf-hub:..., a path
        raise InputError(f"{name!r} isn't built because a file names it: {_GIVE_MODEL}")
    return _package("base_model", f"{name}: run in a checkout of resrep, or {_GIVE_MODEL}").build_model(
        name, **keywords
    )


def _from_torchvision(name: str, keywords: Mapping[str, int]) -> nn.Module:
    models = _package("torchvision.models", f"torchvision/{name}: `pip install torchvision`, or {_GIVE_MODEL}")
    if name not in models.list_models(module=models):
        raise InputError(f"torchvision has no classifier {name!r}: {_GIVE_MODEL}")
    if keywords.get("in_channels", 3) != 3:
        raise InputError(f"torchvision/{name} takes images of 3 channels, not {keywords['in_channels']}: {_GIVE_MODEL}")
    options = {"num_classes": keywords["num_classes"]} if "num_classes" in keywords else {}
    if name in ("googlenet", "inception_v3"):  # these two warn about their slow initialisation unless told
        options["init_weights"] = False
    return models.get_model(name, weights=None, **options)


def _from_timm(name: str, keywords: Mapping[str, int]) -> nn.Module:
    timm = _package("timm", f"timm/{name}: `pip install timm`, or {_GIVE_MODEL}")
    if ":" in name or "/" in name or not timm.is_model(name):  # another place than timm's own list
        raise InputError(f"timm has no model {name!r}: {_GIVE_MODEL}")
    names = {"num_classes": "num_classes", "in_channels": "in_chans"}
    options = {names[key]: value for key, value in keywords.items() if key in names}
    return timm.create_model(name, pretrained=False, **options)


def _package(module: str, needs: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:  # a fault inside the package
            raise
        raise InputError(f"there is no package {error.name} for {needs}") from None
