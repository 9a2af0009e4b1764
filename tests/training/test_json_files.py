"""A run's JSON files: what was written comes back, and what was damaged is told of."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rr import InputError
from training.json_files import as_line, from_line, read_json, read_lines, write_json

CONTENTS = {"recipe": {"lr": 0.1, "steps": [1, 2]}, "name": "ä\x07", "big": 2**70, "small": 1e-300, "none": None}


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {**CONTENTS, "tuple": (1, 2), "by number": {3: "c"}})
    found = read_json(tmp_path / "a.json")
    assert found == {**CONTENTS, "tuple": [1, 2], "by number": {"3": "c"}}
    write_json(tmp_path / "again.json", found)
    assert (tmp_path / "again.json").read_text() == (tmp_path / "a.json").read_text()
    assert math.isnan(from_line(as_line({"loss": float("nan")}) + "\n")["loss"])


def test_every_changed_character_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, CONTENTS)
    text, noticed = path.read_text(), 0
    for place in range(len(text)):
        path.write_text(text[:place] + ("1" if text[place] != "1" else "2") + text[place + 1 :])
        try:
            assert read_json(path) == CONTENTS, place
        except InputError:
            noticed += 1
    assert noticed > 0.8 * len(text)  # the rest is white space


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\udcff", f'{{"a": {"9" * 5000}}}', "[" * 100_000])
def test_what_no_run_writes_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"a\.json is broken"):
        read_json(tmp_path / "a.json")


def test_older_files_have_no_checksum(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(CONTENTS))
    assert read_json(tmp_path / "a.json") == CONTENTS


def test_lines(tmp_path: Path) -> None:
    path, records = tmp_path / "a.jsonl", [{"epoch": 1, "loss": 0.25}, {"epoch": 2}]
    assert read_lines(path) == []
    lines: list[Any] = [as_line(record) + "\n" for record in records]
    path.write_text("".join(lines) + lines[0][:20])
    assert read_lines(path) == records
    path.write_text(lines[0].replace("0.25", "0.35") + lines[1])
    with pytest.raises(InputError, match=r"a\.jsonl is broken .its checksum doesn't fit"):
        read_lines(path)
    with pytest.raises(ValueError, match="cut off"):
        from_line(lines[0].rstrip())
