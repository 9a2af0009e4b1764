"""Networks by name from anywhere: ours, torchvision's, timm's, or a function in a user's own file."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torchvision
from torch import Tensor, nn

from base_model.names import WHERE_ELSE, check_name, is_file
from base_model.registry import build_model
from rr.errors import InputError

_TORCHVISION_CHANNELS = 3
_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class OwnCodeError(RuntimeError):
    """A person's own file, or the function in it that makes the network, raised what is this error's cause."""


def build_any(
    name: str, num_classes: int | None = None, in_channels: int | None = None, image_size: int | None = None
) -> nn.Module:
    """A freshly initialised network, [N, in_channels, H, W] -> logits [N, num_classes].

    Args:
        name: one of `model_names()`, `torchvision/NAME`, `timm/NAME` (needs the package timm) or `FILE.py:FUNCTION`,
            a function (or class) that returns an nn.Module. It is called with those of `num_classes`, `in_channels`
            and `image_size` that are among its parameters.
        num_classes: size of the output; None for the network's own.
        in_channels: channels of the images; None for the network's own. torchvision's networks take 3.
        image_size: side of the images, in pixels; None for the network's own. torchvision's and timm's networks don't
            depend on it.

    Raises:
        InputError: if there is no such network, or it can't have these sizes; the message says what to write.
        OwnCodeError: if a person's file or function fails.
    """
    if is_file(name):
        return _from_file(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    source, _, rest = name.partition("/")
    if source == "torchvision" and rest:
        return _from_torchvision(rest, num_classes, in_channels)
    if source == "timm" and rest:
        return _from_timm(rest, num_classes, in_channels)
    check_name(name)
    return build_model(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size)


def pretrained_weights(name: str) -> dict[str, Tensor]:
    """The state dict that torchvision or timm offers for a network, downloaded where it isn't in their cache.

    Raises:
        InputError: if there is none, or it can't be downloaded.
    """
    source, _, rest = name.partition("/")
    if source == "torchvision" and rest:
        _check_torchvision(rest)
        weights = torchvision.models.get_model_weights(rest).DEFAULT
        with _told_in_a_line(f"{weights.url}"):
            return weights.get_state_dict(progress=False, check_hash=True)
    if source == "timm" and rest:
        timm = _timm(rest)
        if not timm.is_model_pretrained(rest):
            raise InputError(f"timm has no weights for {rest!r}: `timm.list_models(pretrained=True)` names the others")
        with _told_in_a_line(f"timm's weights for {rest}"):
            return timm.create_model(rest, pretrained=True).state_dict()
    raise InputError(
        f"there are no weights to download for {name!r}: give a file, or take {WHERE_ELSE.split(' or')[0]}"
    )


@contextmanager
def _told_in_a_line(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each package, and each version of it, has errors of its own for a lost connection
        reason = " ".join(str(error).split())
        raise InputError(f"can't download {what} ({reason}): fetch it elsewhere, and give the file") from error


def _from_torchvision(name: str, num_classes: int | None, in_channels: int | None) -> nn.Module:
    _check_torchvision(name)
    if in_channels not in (None, _TORCHVISION_CHANNELS):
        raise InputError(
            f"torchvision/{name} takes images of {_TORCHVISION_CHANNELS} channels, not {in_channels}: take timm/NAME, "
            "or a function of your own that changes the first layer (FILE.py:FUNCTION)"
        )
    options = {} if num_classes is None else {"num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):  # these two warn about their slow initialisation unless told
        options["init_weights"] = False
    return torchvision.models.get_model(name, weights=None, **options)


def _check_torchvision(name: str) -> None:
    classifiers = torchvision.models.list_models(module=torchvision.models)
    if name not in classifiers:
        raise InputError(f"torchvision has no classifier {name!r}: choose one of {', '.join(classifiers)}")


def _from_timm(name: str, num_classes: int | None, in_channels: int | None) -> nn.Module:
    options = {"num_classes": num_classes, "in_chans": in_channels}
    return _timm(name).create_model(name, **{key: value for key, value in options.items() if value is not None})


def _timm(name: str) -> ModuleType:
    """The package; InputError if it isn't installed or has no network of this name."""
    try:
        import timm
    except ImportError:
        raise InputError(f"timm/{name} needs the package timm: `pip install timm`") from None
    if not timm.is_model(name):
        raise InputError(f"timm has no model {name!r}: `timm.list_models()` names them")
    return timm


def _from_file(name: str, **sizes: int | None) -> nn.Module:
    path, _, function = name.rpartition(":")
    with _told_whose(f"running {path}"):
        module = _run_file(Path(path))
    build = getattr(module, function, None)
    if not callable(build):
        raise InputError(f"{path} has no function {function!r}: give FILE.py:FUNCTION")
    wanted = inspect.signature(build).parameters
    given = {size: value for size, value in sizes.items() if size in wanted and value is not None}
    lacking = [
        parameter.name
        for parameter in wanted.values()
        if parameter.default is parameter.empty and parameter.kind not in _ANY_NUMBER and parameter.name not in given
    ]
    if lacking:
        raise InputError(
            f"{name} can't be called without {', '.join(lacking)}: it is given {_listed(given)}; give every argument "
            f"but {', '.join(map(repr, sizes))} a default"
        )
    with _told_whose(f"{function}({', '.join(f'{size}={value}' for size, value in given.items())}) in {path}"):
        model = build(**given)
    if not isinstance(model, nn.Module):
        raise InputError(f"{name} returns a {type(model).__name__}: return an nn.Module")
    return model


@contextmanager
def _told_whose(what: str) -> Iterator[None]:
    """A fault in a person's own code keeps its traceback, whose last line then says where it was met."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise OwnCodeError(f"{what} raised {type(error).__name__}: {error}") from error


def _listed(given: dict[str, int]) -> str:
    return " and ".join(f"'{size}' {value}" for size, value in given.items()) or "nothing"


def _run_file(path: Path) -> ModuleType:
    """Import a file as `python FILE.py` would run it: it can import what lies beside it."""
    if not path.is_file():
        raise InputError(f"there is no file {path}: give FILE.py:FUNCTION")
    name = f"network_in_{path.stem}"  # not the stem alone: a `data.py` must not take the place of our `data`
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickle look up a class's module
    beside = str(path.resolve().parent)
    sys.path.insert(0, beside)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(beside)
    return module
