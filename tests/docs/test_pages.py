"""The pages of the repository: the first one is short, and what they point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rr
from tests.docs.pages import PAGES, prose
from tests.scripts import ROOT

LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
NAMED = re.compile(
    r"`((?:rr|benchmarks|examples|experiments|training|tools|results|docs)/[\w/.-]+\.(?:py|json|md|png))`"
)


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_the_reference_has_all_that_is_public() -> None:
    reference = re.findall(r"^::: rr\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert sorted(reference) == sorted(rr.__all__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_points_to_is_there(page: Path) -> None:
    text = page.read_text()
    links = [link for link in LINK.findall(prose(page)) if not link.startswith(("http", "mailto"))]
    dead = [link for link in links if not (page.parent / link).exists()]
    if page.name != "CHANGELOG.md":  # what was is named there
        dead += [name for name in NAMED.findall(text) if not (ROOT / name).exists()]
    assert dead == []
