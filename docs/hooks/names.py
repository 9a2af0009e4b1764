"""Griffe extension: "lr, momentum: of the optimiser" in a docstring is an entry for each of the names.

So the reference lists each, with its type, and a name that isn't in the signature is found.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_SEVERAL = re.compile(r"^(?P<indent> +)(?P<names>\w+(?:, \w+)+): (?P<text>.*\n?(?:(?P=indent) +.*\n?)*)", re.MULTILINE)


class SplitNames(Extension):
    """Splits them in every docstring, before it is parsed."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Called for each object that has been read."""
        if obj.docstring is not None:
            obj.docstring.value = split_names(obj.docstring.value)


def split_names(docstring: str) -> str:
    """A docstring in which each entry has one name."""

    def entries(match: re.Match[str]) -> str:
        text = match["text"] if match["text"].endswith("\n") else f"{match['text']}\n"
        return "".join(f"{match['indent']}{name}: {text}" for name in match["names"].split(", "))

    return _SEVERAL.sub(entries, docstring)
