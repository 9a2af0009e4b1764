"""The tables of the README and of docs/ come from the files under results/, and from nothing else."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import scripts
from tests.scripts import ROOT

PROSE = sorted(path.stem for path in (ROOT / "docs" / "results").glob("*.md") if path.stem != "coverage")


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


def faster(result: dict[str, Any]) -> None:
    result["small images"]["images_per_s"] *= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("src20_digits.json", better),
        ("coverage.json", smaller),
        ("narrowing_accuracy.json", luckier),
        ("short_schedules.json", luckier),
        ("loading.json", faster),
    ],
)
def test_a_changed_file_is_noticed(checkout: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = checkout / "results" / name
    result = json.loads(path.read_text())
    change(result)
    path.write_text(json.dumps(result))
    assert tool("--check", "--root", checkout) == 1
    assert tool("--root", checkout) == 0
    assert tool("--check", "--root", checkout) == 0


@pytest.mark.slow
def test_a_page_typed_by_hand_is_noticed(checkout: Path) -> None:
    page = checkout / "docs" / "results" / "coverage.md"
    page.write_text(page.read_text() + "| one more |\n")
    assert tool("--check", "--root", checkout) == 1
    assert tool("--root", checkout) == 0
    readme = checkout / "README.md"
    readme.write_text(readme.read_text().replace("| `src20`, digits |", "| `src20`, letters |"))
    assert tool("--check", "--root", checkout) == 1


SHOWN = sorted(path.name for path in (ROOT / "results").glob("*.json"))
NAMED = ["robustness/soak.json", "training_cost.png"]  # in a text, and as a picture


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SHOWN, *NAMED])
def test_a_file_that_is_gone_is_missed(name: str, checkout: Path) -> None:
    (checkout / "results" / name).unlink()
    for options in (["--check"], []):
        run = scripts.call("tools/results_table.py", *options, "--root", checkout)
        assert run.returncode == 2
        assert f"{name} is missing" in run.stderr


@pytest.mark.parametrize("name", ["new.json", "new.png"])
def test_a_file_that_no_page_shows_is_refused(name: str, checkout: Path) -> None:
    (checkout / "results" / name).write_text("{}")
    run = scripts.call("tools/results_table.py", "--check", "--root", checkout)
    assert run.returncode == 2
    assert f"no page shows results/{name}" in run.stderr


GENERATED = re.compile(r"<!-- (.*?): begin \(tools/results_table.py\) -->.*?<!-- \1: end -->", re.DOTALL)
MEASURED = re.compile(r"\d\.\d+ ?%|\d+\.\d+ ?x\b|\d ?% of a|\d points|\de-1\d")  # as a result is written, not a setting


@pytest.mark.parametrize("page", ["README.md", *(f"docs/results/{name}.md" for name in PROSE)])
def test_no_figure_of_a_page_is_typed(page: str) -> None:
    text = GENERATED.sub("", (ROOT / page).read_text())
    typed = [line for line in text.splitlines() if MEASURED.search(line) and "the paper" not in line.lower()]
    assert [line for line in typed if not line.startswith("ResNet-56 93.71%")] == []  # the paper's own


def test_result_files_name_what_made_them() -> None:
    files = list((ROOT / "results").glob("*.json"))
    assert files
    for path in files:
        text = path.read_text()
        for word in ("commit", "versions", "hardware"):
            assert f'"{word}"' in text, f"{path.name} lacks {word}"
