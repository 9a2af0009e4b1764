"""Links from the pages to files outside docs/, on a small site."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from tests.scripts import ROOT

CONFIG = """site_name: small
strict: true
use_directory_urls: false
theme: {name: mkdocs, highlightjs: false}
hooks: [docs/hooks/outside.py]
exclude_docs: hooks/
plugins: []
validation: {anchors: warn}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with pages, to which a test adds its own."""
    for folder in ("docs/hooks", "docs/deep", "examples", "results"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / "docs/hooks/outside.py", tmp_path / "docs/hooks")
    (tmp_path / "mkdocs.yml").write_text(CONFIG)
    (tmp_path / "README.md").write_text("# First\n\n## Install\n\n[deep](docs/deep/page.md), [more](more.md)\n")
    (tmp_path / "more.md").write_text("# More\n\n[back](README.md#install)\n")
    (tmp_path / "CONTRIBUTING.md").write_text("# Contributing\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n")
    (tmp_path / "examples/plain.py").write_text("answer = 42\n")
    (tmp_path / "results/plot.png").write_bytes(b"a picture")
    (tmp_path / "docs/index.md").write_text("# Start\n\n[deep](deep/page.md)\n")
    (tmp_path / "docs/deep/page.md").write_text(
        "# Deep\n\n[install](../../README.md#install), [example](../../examples/plain.py), [start](../index.md), "
        "![plot](../../results/plot.png)\n\n```\n[none](../../README.md)\n```\n"
    )
    return tmp_path


def built(checkout: Path) -> Path:
    """The site's folder."""
    levels = {name: logging.getLogger(name).level for name in ("mkdocs", "MARKDOWN")}
    try:
        build(load_config(str(checkout / "mkdocs.yml")))
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    return checkout / "site"


def test_what_pages_link_to_is_on_the_site(checkout: Path) -> None:
    site = built(checkout)
    page = (site / "deep/page.html").read_text()
    for link in (
        'href="../checkout/index.html#install"',
        'href="../checkout/examples/plain.py.html"',
        'href="../index.html"',
        'src="../checkout/results/plot.png"',
        "[none](../../README.md)",  # code stays as it is
    ):
        assert link in page
    assert (site / "checkout/results/plot.png").read_bytes() == b"a picture"
    assert "answer = 42" in (site / "checkout/examples/plain.py.html").read_text()
    readme = (site / "checkout/index.html").read_text()
    assert 'href="../deep/page.html"' in readme
    assert 'href="more.html"' in readme
    assert 'href="index.html#install"' in (site / "checkout/more.html").read_text()


@pytest.mark.parametrize("link", ["../../none.md", "../none.md", "../../README.md#none", "../../examples/none.py"])
def test_a_dead_link_fails(checkout: Path, link: str) -> None:
    page = checkout / "docs/deep/page.md"
    page.write_text(page.read_text() + f"[dead]({link})\n")
    with pytest.raises(Abort):
        built(checkout)
