"""The pages of the repository: short, without dead links, and their code runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests import scripts
from tests.scripts import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
NAMED = re.compile(
    r"`((?:rr|benchmarks|examples|experiments|training|tools|results|docs)/[\w/.-]+\.(?:py|json|md|png))`"
)
TABLES_EXAMPLE = re.compile(r"<!-- tables example -->\n```python\n(.*?)```", re.DOTALL)


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_points_to_is_there(page: Path) -> None:
    text = page.read_text()
    links = [link for link in LINK.findall(text) if not link.startswith(("http", "mailto"))]
    dead = [link for link in links if not (page.parent / link).exists()]
    if page.name != "CHANGELOG.md":  # what was is named there
        dead += [name for name in NAMED.findall(text) if not (ROOT / name).exists()]
    assert dead == []


COMMANDS = re.findall(
    r"^python (train_base_model\.py|rr/exp_resrep\.py|tools/export\.py|tools/latency\.py) +(\S.*?)(?: +#.*)?$",
    "\n".join(page.read_text() for page in PAGES),
    re.MULTILINE,
)


@pytest.mark.parametrize(("script", "words"), sorted({found for found in COMMANDS if "..." not in found[1]}), ids=str)
def test_the_commands_on_the_pages_are_taken(script: str, words: str) -> None:
    scripts.load(script).parse_arguments(shlex.split(words))


def test_there_are_commands_on_the_pages() -> None:
    assert ("rr/exp_resrep.py", "-a src20 --dataset digits") in COMMANDS
    assert {script for script, _ in COMMANDS} >= {"tools/export.py", "tools/latency.py"}


def test_the_tables_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = TABLES_EXAMPLE.findall((ROOT / "docs" / "prune_your_own_model.md").read_text())
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(code, "prune_your_own_model.md", "exec"), names)
    assert names["pruner"].report.macs_ratio <= 0.5
    assert names["pruner"].report.widths[-1] == 32  # the hidden layer is whole
    assert (tmp_path / "slim.hdf5").is_file()
    assert "yes, with conv2.0" in capsys.readouterr().out
