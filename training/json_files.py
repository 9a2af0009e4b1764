"""A run's files in JSON, with a checksum by which damage shows when they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rr.errors import InputError
from rr.whole_files import write_text_whole

CHECKSUM, KIND = "checksum", "sha256:"  # the name under which a file, or a line, has it, and how it begins


def write_json(path: str | Path, contents: Mapping[str, Any]) -> None:
    """Write a JSON file with its checksum; the old one stays in its place until the new one is whole."""
    write_text_whole(path, json.dumps(_with_checksum(contents), indent=2) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """What a JSON file holds; one without a checksum, another program's or an older version's, is taken as it is.

    Raises:
        InputError: if it is no JSON, holds no names, or isn't what was written.
        OSError: if it can't be read.
    """
    try:
        return _checked(json.loads(Path(path).read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:  # no text, no JSON, a number of too many digits
        raise InputError(f"{path} is broken ({error}): bring it back from a copy") from None


def as_line(record: Mapping[str, Any]) -> str:
    """A line of a file that has one record in each, without its end."""
    return json.dumps(_with_checksum(record))


def from_line(line: str) -> dict[str, Any]:
    """The record of a line.

    Raises:
        ValueError: if it is torn, or isn't what was written.
    """
    if not line.endswith("\n"):
        raise ValueError("a line that a kill has cut off")
    return _checked(json.loads(line))


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """The records of a file that has one in each line; none where there is no file. A torn last line is left out.

    Raises:
        InputError: if a line isn't what was written.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return [from_line(line) for line in lines if line.endswith("\n")]
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is broken ({error}): bring it back from a copy") from None


def _with_checksum(contents: Mapping[str, Any]) -> dict[str, Any]:
    plain = json.loads(json.dumps(dict(contents)))  # names that aren't text, tuples: as they will be read
    return {**plain, CHECKSUM: _checksum(plain)}


def _checked(contents: Any) -> dict[str, Any]:
    if not isinstance(contents, dict):
        raise ValueError("it holds no names")
    told = contents.pop(CHECKSUM, None)
    # One under another name is one whose name was damaged.
    is_hidden = told is None and any(isinstance(value, str) and value.startswith(KIND) for value in contents.values())
    if is_hidden or (told is not None and told != _checksum(contents)):
        raise ValueError(f"its checksum doesn't fit; if you changed it by hand, take its {CHECKSUM} out")
    return contents


def _checksum(contents: Mapping[str, Any]) -> str:
    return KIND + hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()
