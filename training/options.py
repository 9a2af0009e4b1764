"""Frozen dataclasses as command lines: each setting is an option, its value on a ready instance the default.

    parser = OptionParser(description=...)
    add_options(parser, recipe)                       # any number of instances, of any dataclasses
    recipe = from_options(parser.parse_args(), recipe)

A field's metadata may hold `help`, `choices`, `flags` (short names, ('-a',)), `option` (False: no option),
`is_required` (True: its value here is an example, which the help doesn't show), and what `rr.settings` knows: `topic`,
under which options are grouped, and `name` and `aliases`, which name an option as well.
Nothing here needs torch, so that `--help` and a wrong option are answered at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn, TypeVar

from rr.errors import InputError
from rr.settings import Setting, Share, changed, flat, plain, settings_of

_MISSING = "the following arguments are required"  # how argparse begins
_MANY = ("*", "+")  # values that an option may take
CONTINUE_FLAGS = ("-c", "--conti_or_fs", "--conti-or-fs")

T = TypeVar("T")


class OptionParser(argparse.ArgumentParser):
    """argparse's parser, but it keeps the description's lines, takes no abbreviations, and suggests what was meant.

    An option together with its opposite (`--amp --no-amp`) is a mistake.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)
        self._typed: list[str] = []

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """As argparse has it, after a look for opposites."""
        typed = sys.argv[1:] if args is None else list(args)
        self._typed = typed = typed[: typed.index("--")] if "--" in typed else typed
        for action in self._actions:
            if isinstance(action, argparse.BooleanOptionalAction):
                given = [flag for flag in action.option_strings if flag in typed]
                if len({flag.startswith("--no-") for flag in given}) > 1:
                    self.error(f"{' and '.join(given)} are opposites: give one of them")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and a line that says what is wrong.

        For an unknown option it names the nearest one, and where an option with any number of values may have taken a
        file for one, it says so.
        """
        if message.startswith("unrecognized arguments:"):
            known = [flag for action in self._actions for flag in action.option_strings]
            unknown = re.findall(r"(?<= )--?[\w-]+", message)
            near = [match for flag in unknown for match in get_close_matches(flag, known, n=1, cutoff=0.5)]
            if near:
                message += f" (did you mean {', '.join(dict.fromkeys(near))}?)"
        elif option := self._greedy(message):
            files = " ".join(action.metavar or action.dest.upper() for action in self._files())
            message += f" ({option} takes all values that follow it: put {files} first)"
        self.exit(2, f"{self.prog}: error: {message}\n")

    def _files(self) -> list[argparse.Action]:
        """What is given without an option's name."""
        return [action for action in self._actions if not action.option_strings]

    def _greedy(self, message: str) -> str | None:
        """The option that takes any number of values, and with them may have taken the file that a message misses."""
        found = [
            flag
            for action in self._actions
            if action.nargs in _MANY and message.startswith((_MISSING, f"argument {'/'.join(action.option_strings)}:"))
            for flag in action.option_strings
            if flag in self._typed
        ]
        return max(found, key=self._typed.index) if found and self._files() else None  # the last one took it


def add_options(
    parser: argparse.ArgumentParser, *recipes: Any, readers: Mapping[str, Callable[[str], Any]] | None = None
) -> None:
    """Add one option per setting of each dataclass instance; `batch_size` becomes `--batch-size`, default its value.

    A bool becomes `--amp` and `--no-amp`; a tuple takes any number of values; where None is possible, it is written
    `none`.

    Args:
        parser: the parser, which gets a group of options for each topic.
        recipes: the instances.
        readers: by name of the setting, what turns its text into a value, where its type doesn't say that.

    Raises:
        InputError: if two instances share a setting, since one option couldn't serve both.
    """
    taken: dict[str, str] = {}
    groups: dict[str, Any] = {}
    for recipe in recipes:
        owner = type(recipe).__name__
        for setting in _options(recipe):
            if setting.name in taken:
                raise InputError(
                    f"{taken[setting.name]} and {owner} both have a field '{setting.name}': rename one, "
                    "or give one metadata={'option': False}"
                )
            taken[setting.name] = owner
            topic = setting.topic or owner
            if topic not in groups:
                groups[topic] = parser.add_argument_group(topic)
            metadata = setting.field.metadata
            names = ("--" + name.replace("_", "-") for name in (setting.name, *setting.aliases))
            how = _argument_settings(metadata, setting.kind)
            if setting.name in (readers or {}):
                how["type"] = readers[setting.name]
            groups[topic].add_argument(
                *metadata.get("flags", ()),
                *names,
                dest=setting.name,
                default=setting.value,
                help=_help(metadata, setting.value),
                **how,
            )


def add_continue(parser: argparse.ArgumentParser) -> None:
    """Add `-c fs` (from scratch) and `-c continue`, as `options.conti_or_fs`."""
    parser.add_argument(
        *CONTINUE_FLAGS,
        choices=("fs", "continue"),
        default=None,
        help="a folder that holds a run: fs deletes the run and starts from scratch, continue goes on with it, with "
        "the settings in its run.json wherever none is given here",
    )


def add_local_rank(parser: argparse.ArgumentParser) -> None:
    """Accept `--local-rank` and `--local_rank`, which launchers older than torchrun pass to each process."""
    parser.add_argument("--local-rank", "--local_rank", type=int, default=None, help=argparse.SUPPRESS)


def from_options(options: argparse.Namespace, recipe: T) -> T:
    """The recipe with the options' values in place of its own; settings without an option keep theirs."""
    values = {setting.name: getattr(options, setting.name) for setting in _options(recipe)}
    return changed(recipe, **{n: tuple(value) if isinstance(value, list) else value for n, value in values.items()})


def from_plain(values: Mapping[str, Any], recipe: T) -> T:
    """The recipe with plain values, as `to_plain` gave them, in place of its own; names that it lacks are left out.

    Raises:
        InputError: for a value that can't be, and for values that exclude each other.
    """

    def read(setting: Setting) -> Any:
        value = values[setting.name]
        if isinstance(value, list):
            return tuple(value)
        return Share(value) if setting.kind in (Share, Share | None) and value is not None else value

    return changed(recipe, **{s.name: read(s) for s in settings_of(recipe) if s.name in values})


def typed_names(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> set[str]:
    """The settings that a command line gives itself, even where it gives their default."""
    nothing = object()
    places = {action.dest: nothing for action in parser._actions}
    typed = parser.parse_args(arguments, argparse.Namespace(**places))
    return {name for name, value in vars(typed).items() if value is not nothing}


def option_names(*recipes: Any) -> dict[str, str]:
    """How each setting is typed: `batch_size` as `--batch-size`; settings without an option are left out."""
    names = {}
    for setting in (setting for recipe in recipes for setting in _options(recipe)):
        long = [flag for flag in setting.field.metadata.get("flags", ()) if flag.startswith("--")]
        names[setting.name] = long[0] if long else "--" + setting.name.replace("_", "-")
    return names


def to_plain(recipe: Any) -> dict[str, Any]:
    """The settings as a dict of plain values, equal to what JSON gives back (tuples become lists)."""
    return flat(recipe)


def default_values(*recipes: Any) -> dict[str, Any]:
    """The default values of the settings of these instances' classes, as `to_plain` gives them."""
    settings = [setting for recipe in recipes for setting in settings_of(recipe)]
    return {s.name: plain(s.field.default) for s in settings if s.field.default is not dataclasses.MISSING}


def read_ahead(arguments: Sequence[str], *flags: str, **settings: Any) -> Any:
    """The value of one option, read ahead of all others, whose defaults it decides; None where it isn't given.

    Args:
        arguments: the command line's.
        flags: the option's names.
        settings: of `add_argument`, for an option whose value isn't plain text.
    """
    parser = OptionParser(add_help=False)
    parser.add_argument(*flags, dest="value", **settings)
    return parser.parse_known_args(arguments)[0].value


def check_choices(recipe: Any) -> None:
    """Check that every field's value is among its metadata's `choices`, where it has any.

    Raises:
        InputError: if one isn't.
    """
    for field in dataclasses.fields(recipe):
        choices, value = field.metadata.get("choices"), getattr(recipe, field.name)
        if choices and value not in choices:
            raise InputError(f"{field.name} is '{value}': choose from {', '.join(map(str, choices))}")


def _options(recipe: Any) -> list[Setting]:
    return [setting for setting in settings_of(recipe) if setting.field.metadata.get("option", True)]


def _argument_settings(metadata: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if typing.get_origin(kind) is tuple:
        return {"nargs": "*", "type": _reader(typing.get_args(kind)[0])}
    settings: dict[str, Any] = {"type": _reader(kind)}
    if choices := metadata.get("choices"):
        settings["choices"] = choices
    return settings


def _reader(kind: Any) -> Callable[[str], Any]:
    """What turns an option's text into a value: int, float, str, Share, int | Share, or one of them `| None`."""
    if kind is Share:
        return _share
    if typing.get_origin(kind) not in (types.UnionType, typing.Union):
        assert kind in (int, float, str), f"no option can be made for a field of type {kind}"
        return kind
    if set(typing.get_args(kind)) == {int, Share}:
        return _steps
    if set(typing.get_args(kind)) == {float, Share}:
        return _number
    (inner,) = (part for part in typing.get_args(kind) if part is not type(None))
    read_inner = _reader(inner)

    def read(text: str) -> Any:
        return None if text == "none" else read_inner(text)

    read.__name__ = inner.__name__  # argparse names the type in its messages
    return read


def _share(text: str) -> Share:
    return Share.read(text)


def _steps(text: str) -> int | Share:
    """A whole number, or a share: `1%`, or a number under 1 with a point in it."""
    return int(text) if text.strip().lstrip("+-").isdigit() else Share.read(text)


def _number(text: str) -> float | Share:
    """A number, an int if it is whole, so that a recipe is written the same whichever way it was typed; or `50%`."""
    if text.strip().endswith("%"):
        return Share.read(text)
    value = float(text)
    return int(value) if value.is_integer() else value


_share.__name__ = "share"
_number.__name__ = "number, or share,"
_steps.__name__ = "number of steps, or share,"


def _help(metadata: Mapping[str, Any], default: Any) -> str:
    text = str(metadata.get("help", ""))
    if metadata.get("is_required"):
        return text.replace("%", "%%")
    shown = " ".join(map(_shown, default)) or "none" if isinstance(default, tuple) else _shown(default)
    return f"{text} (default: {shown})".replace("%", "%%").strip()


def _shown(default: Any) -> str:
    if isinstance(default, Share):
        return f"{100 * default:g}%"
    return "none" if default is None else str(default)
