"""Settings: frozen dataclasses, nested by topic, with one flat name for each setting.

A field's metadata may hold `name` (its flat name, where that isn't the field's own), `aliases` (older names for it),
`topic` (else that of the nested field that it is in) and `help`, `choices`, `flags`, `option`, which are for command
lines (`training/options.py`).
"""

from __future__ import annotations

import dataclasses
import numbers
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from rr.errors import InputError

T = TypeVar("T")


class Share(float):
    """A share of a run, above 0 and at most 1: of its steps, or of its epochs.

    Raises:
        InputError: if the number isn't in that range.
    """

    def __new__(cls, value: float) -> Share:
        share = super().__new__(cls, value)
        if not 0 < share <= 1:
            raise InputError(f"{value} isn't a share of a run: give a number above 0, at most 1")
        return share

    def of(self, total: float) -> float:
        """This share of `total`."""
        return float(self) * total

    def __repr__(self) -> str:
        return f"Share({float(self):g})"

    @classmethod
    def read(cls, text: str) -> Share:
        """The share that a text says, `1%` or `0.01`."""
        number = text.strip()
        return cls(float(number[:-1]) / 100 if number.endswith("%") else float(number))


def setting(help: str, default: Any = dataclasses.MISSING, **metadata: Any) -> Any:
    """A dataclass's field with its help text; without a default it must be given.

    Args:
        help: what a command line says about it.
        default: its value where none is given.
        metadata: more of the field's metadata (`name`, `choices`, ...).
    """
    return dataclasses.field(default=default, metadata={"help": help, **metadata})


@dataclass(frozen=True)
class Setting:
    """One setting of a (nested) dataclass.

    Attributes:
        name: its flat name.
        path: the fields that lead to it.
        field: the dataclass's field.
        kind: its type.
        value: what it is.
        topic: what it is about: its own, else the nested field that it is in, else "".
    """

    name: str
    path: tuple[str, ...]
    field: dataclasses.Field
    kind: Any
    value: Any
    topic: str

    @property
    def aliases(self) -> tuple[str, ...]:
        """Older names for it."""
        return self.field.metadata.get("aliases", ())


def settings_of(config: Any, path: tuple[str, ...] = ()) -> Iterator[Setting]:
    """Every setting of a dataclass instance, those of nested ones in their place.

    Args:
        config: the instance.
        path: the fields that lead to it.
    """
    kinds = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, place = getattr(config, field.name), (*path, field.name)
        if dataclasses.is_dataclass(value):
            yield from settings_of(value, place)
        else:
            name = field.metadata.get("name", field.name)
            topic = field.metadata.get("topic", path[-1] if path else "")
            yield Setting(name, place, field, kinds[field.name], value, topic)


def flat(config: Any) -> dict[str, Any]:
    """The settings by flat name, as plain values (tuples become lists): equal to what JSON gives back."""
    return {setting.name: plain(setting.value) for setting in settings_of(config)}


def plain(value: Any) -> Any:
    """A setting's value as JSON gives it back: lists for tuples, numbers for shares."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return float(value) if isinstance(value, Share) else value


def changed(config: T, **values: Any) -> T:
    """The same settings with other values, by flat name or alias.

    Raises:
        InputError: for a name that no setting has, or a value that can't be.
    """
    known = {name: setting for setting in settings_of(config) for name in (setting.name, *setting.aliases)}
    paths = {name: setting.path for name, setting in known.items()}
    for name, value in values.items():
        if name in known and isinstance(value, str) and not _may_be_text(known[name].kind):
            raise InputError(f"{name} must be a number, not {value!r}")
        if name not in paths:
            near = get_close_matches(name, paths, n=1)
            names = sorted(setting.name for setting in settings_of(config))
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
            raise InputError(f"{type(config).__name__} has no setting {name!r}: {hint}")
    lists = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return _replaced(config, {paths[name]: value for name, value in lists.items()})


def _may_be_text(kind: Any) -> bool:
    """Whether a setting of this type may be a str, or is checked by itself, as shares are."""
    if typing.get_origin(kind) is typing.Literal:
        return any(isinstance(choice, str) for choice in typing.get_args(kind))
    return kind in (str, Any, Share) or any(map(_may_be_text, typing.get_args(kind)))


def _replaced(config: Any, values: dict[tuple[str, ...], Any]) -> Any:
    """Replace all at once, so that no check sees half of the changes."""
    direct = {path[0]: value for path, value in values.items() if len(path) == 1}
    for first in {path[0] for path in values if len(path) > 1}:
        inner = {path[1:]: value for path, value in values.items() if path[0] == first}
        direct[first] = _replaced(getattr(config, first), inner)
    return dataclasses.replace(config, **direct)


def check_types(config: Any) -> None:
    """Check that a dataclass's own settings have the types that its fields say; whole numbers may be of NumPy's.

    What may be a share of a run is for the dataclass to check: it knows a share of what.

    Raises:
        InputError: with the setting's name, what it must be, and its value.
    """
    for found in settings_of(config):
        if len(found.path) > 1 or Share in typing.get_args(found.kind):
            continue
        if not _is_of(found.value, found.kind):
            raise InputError(f"{found.name} must be {_in_words(found.kind)}, not {found.value!r}")


_WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text", type(None): "None"}


def _is_of(value: Any, kind: Any) -> bool:
    if kind is bool or isinstance(value, bool):
        return isinstance(value, bool) and kind is bool
    if kind in (int, float):
        return isinstance(value, numbers.Integral if kind is int else numbers.Real)
    inner = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_of(item, inner[0]) for item in value)
    return any(_is_of(value, each) for each in inner) if inner else isinstance(value, kind)


def _in_words(kind: Any) -> str:
    inner = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return f"a list of values, each {_in_words(inner[0])}"
    return " or ".join(map(_in_words, inner)) if inner else _WORDS.get(kind, kind.__name__)


def check(config: Any, checks: dict[str, bool]) -> None:
    """Raise for the first condition that doesn't hold.

    Args:
        config: the settings.
        checks: message -> whether its condition holds; a message begins with the field's name.

    Raises:
        InputError: with the message and the value.
    """
    for message, holds in checks.items():
        if not holds:
            name = message.split()[0]
            shown = next((s.name for s in settings_of(config) if s.path == (name,)), name)
            raise InputError(f"{shown}{message[len(name) :]}, not {getattr(config, name)!r}")
