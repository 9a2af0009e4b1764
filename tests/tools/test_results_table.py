"""The tables of the README and of docs/ come from the files under results/, and from nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import scripts
from tests.scripts import ROOT


def tool(*options: object) -> int:
    run = scripts.call("tools/results_table.py", *options)
    assert run.stderr == ""
    return run.returncode


def test_the_files_say_what_the_results_say() -> None:
    assert tool("--check") == 0, "run `python tools/results_table.py`"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the tool reads and writes, in a folder of its own."""
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "results", tmp_path / "results")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    return tmp_path


def better(result: dict[str, Any]) -> None:
    result["comparison"]["pruned"]["val"]["top1"] += 1


def smaller(result: dict[str, Any]) -> None:
    next(iter(result["models"].values()))["units"] -= 1


def luckier(result: dict[str, Any]) -> None:
    result["entries"][0]["top1"]["mean"] += 1


@pytest.mark.parametrize(
    ("name", "change"),
    [("src20_digits.json", better), ("coverage.json", smaller), ("narrowing_accuracy.json", luckier)],
)
def test_a_changed_file_is_noticed(checkout: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = checkout / "results" / name
    result = json.loads(path.read_text())
    change(result)
    path.write_text(json.dumps(result))
    assert tool("--check", "--root", checkout) == 1
    assert tool("--root", checkout) == 0
    assert tool("--check", "--root", checkout) == 0


def test_a_page_typed_by_hand_is_noticed(checkout: Path) -> None:
    page = checkout / "docs" / "coverage.md"
    page.write_text(page.read_text() + "| one more |\n")
    assert tool("--check", "--root", checkout) == 1
    page.unlink()
    assert tool("--check", "--root", checkout) == 1


def test_result_files_name_what_made_them() -> None:
    files = list((ROOT / "results").glob("*.json"))
    assert files
    for path in files:
        text = path.read_text()
        for word in ("commit", "versions", "hardware"):
            assert f'"{word}"' in text, f"{path.name} lacks {word}"
