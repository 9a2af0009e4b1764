"""Frozen dataclasses as command lines: each field is an option, its value on a ready instance the default.

    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_options(parser, recipe)                       # any number of instances, of any dataclasses
    recipe = from_options(parser.parse_args(), recipe)

A field's metadata may hold `help`, `choices`, `flags` (short names, ('-a',)) and `option` (False: no option).
"""

import argparse
import dataclasses
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def add_options(parser: argparse.ArgumentParser, *recipes: Any) -> None:
    """Add one option per field of each dataclass instance; `batch_size` becomes `--batch-size`, default its value.

    bool: `--amp` and `--no-amp`. tuple: any number of values. Optional: the word `none` stands for None.
    Raises ValueError if two instances share a field, since one option couldn't serve both.
    """
    taken: dict[str, str] = {}
    for recipe in recipes:
        name = type(recipe).__name__
        group = parser.add_argument_group(name)
        for field, kind in _option_fields(recipe):
            if field.name in taken:
                raise ValueError(
                    f"{taken[field.name]} and {name} both have a field '{field.name}': rename one, "
                    "or give one metadata={'option': False}"
                )
            taken[field.name] = name
            flags = (*field.metadata.get("flags", ()), "--" + field.name.replace("_", "-"))
            default = getattr(recipe, field.name)
            group.add_argument(
                *flags,
                dest=field.name,
                default=default,
                help=_help(field, default),
                **_argument_settings(field, kind),
            )


def from_options(options: argparse.Namespace, recipe: T) -> T:
    """The recipe with the options' values in place of its own; fields without an option keep theirs."""
    values = {}
    for field, _ in _option_fields(recipe):
        value = getattr(options, field.name)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(recipe, **values)


def to_plain(recipe: Any) -> dict[str, Any]:
    """The fields as a dict of plain values, equal to what JSON gives back (tuples become lists)."""
    fields = dataclasses.asdict(recipe)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def default_values(*recipes: Any) -> dict[str, Any]:
    """What the fields of these instances' classes are where nobody says otherwise, as `to_plain` gives it."""
    fields = [field for recipe in recipes for field in dataclasses.fields(recipe)]
    values = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def read_ahead(arguments: Sequence[str], *flags: str, **settings: Any) -> Any:
    """The value of one option, read ahead of all others: one that decides what the others' defaults are.

    None where it isn't given. settings: of `add_argument`, for an option that isn't a plain text's.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(*flags, dest="value", **settings)
    return parser.parse_known_args(arguments)[0].value


def check_choices(recipe: Any) -> None:
    """Raise ValueError for a field whose value isn't among its metadata's `choices`."""
    for field in dataclasses.fields(recipe):
        choices, value = field.metadata.get("choices"), getattr(recipe, field.name)
        if choices and value not in choices:
            raise ValueError(f"{field.name} is '{value}': choose from {', '.join(map(str, choices))}")


def _option_fields(recipe: Any) -> list[tuple[dataclasses.Field, Any]]:
    hints = typing.get_type_hints(type(recipe))
    fields = [field for field in dataclasses.fields(recipe) if field.metadata.get("option", True)]
    return [(field, hints[field.name]) for field in fields]


def _argument_settings(field: dataclasses.Field, kind: Any) -> dict[str, Any]:
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if typing.get_origin(kind) is tuple:
        return {"nargs": "*", "type": typing.get_args(kind)[0]}
    settings: dict[str, Any] = {"type": _reader(kind)}
    if choices := field.metadata.get("choices"):
        settings["choices"] = choices
    return settings


def _reader(kind: Any) -> Callable[[str], Any]:
    """What turns an option's text into a value of this type: int, float, str, int | float, or one of them `| None`."""
    if typing.get_origin(kind) not in (types.UnionType, typing.Union):
        assert kind in (int, float, str), f"no option can be made for a field of type {kind}"
        return kind
    if set(typing.get_args(kind)) == {int, float}:
        return _number
    (inner,) = (part for part in typing.get_args(kind) if part is not type(None))

    def read(text: str) -> Any:
        return None if text == "none" else inner(text)

    read.__name__ = inner.__name__  # argparse names the type in its messages
    return read


def _number(text: str) -> int | float:
    """An int where it is a whole number, so that a recipe is written the same whichever way it was typed."""
    value = float(text)
    return int(value) if value.is_integer() else value


_number.__name__ = "number"


def _help(field: dataclasses.Field, default: Any) -> str:
    text = str(field.metadata.get("help", ""))
    shown = (
        " ".join(map(str, default)) or "none"
        if isinstance(default, tuple)
        else str(default).lower()
        if default is None
        else default
    )
    return f"{text} (default: {shown})".replace("%", "%%").strip()
