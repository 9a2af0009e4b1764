"""Networks by name from anywhere: ours, torchvision's, timm's, or a function in a person's own file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torchvision
from torch import nn

from base_model.registry import build_model, model_names


def build_any(name: str) -> nn.Module:
    """A freshly initialised network.

    Args:
        name: one of `model_names()`, `torchvision/NAME`, `timm/NAME` (needs the package timm) or `FILE.py:FUNCTION`,
            a function without arguments that returns an nn.Module.

    Raises:
        ValueError: if there is no such network; the message says what to write.
    """
    source, _, rest = name.partition("/")
    path, colon, function = name.rpartition(":")
    if colon and path.endswith(".py"):
        return _from_file(Path(path), function)
    if rest and source == "torchvision":
        return _from_torchvision(rest)
    if rest and source == "timm":
        return _from_timm(rest)
    if name not in model_names():
        raise ValueError(
            f"no network is called {name!r}: choose one of {', '.join(model_names())}, torchvision/NAME, timm/NAME "
            "or FILE.py:FUNCTION"
        )
    return build_model(name)


def _from_torchvision(name: str) -> nn.Module:
    classifiers = torchvision.models.list_models(module=torchvision.models)
    if name not in classifiers:
        raise ValueError(f"torchvision has no classifier {name!r}: choose one of {', '.join(classifiers)}")
    # These two warn about their slow initialisation unless told.
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **extra)


def _from_timm(name: str) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise ValueError(f"timm/{name} needs the package timm: `pip install timm`") from None
    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}: `timm.list_models()` names them")
    return timm.create_model(name)


def _from_file(path: Path, function: str) -> nn.Module:
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give FILE.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, function, None)):
        raise ValueError(f"{path} has no function {function!r}: give FILE.py:FUNCTION")
    model = getattr(module, function)()
    if not isinstance(model, nn.Module):
        raise ValueError(f"{path}:{function} returns a {type(model).__name__}: return an nn.Module")
    return model
