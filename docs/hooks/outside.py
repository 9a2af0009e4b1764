"""MkDocs hook: links from docs/ to files outside of it, which GitHub follows, work on the site as well.

Such a file becomes a part of the site, under checkout/: Markdown as a page, Python as a page that shows its source, all
else as it is. A link to a file that isn't there is left to MkDocs, which refuses it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parent.parent
ROOT = DOCS.parent
COPIES = "checkout"
ALWAYS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")  # pages of the site's menu
_FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?P<before>\]\()(?P<path>[^)#\s:]+)(?=[)#\s])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages of docs/ link to outside, and what these link to in turn."""
    waiting = [ROOT / name for name in ALWAYS]
    waiting += [path for page in files.documentation_pages() for path in outside(Path(page.abs_src_path))]
    added: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in added:
            added.add(path)
            files.append(_as_file(path, config))
            waiting += outside(path) if path.suffix == ".md" else []
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links as they have to be on the site."""
    here = source(page.file.src_uri)

    def on_the_site(match: re.Match[str]) -> str:
        path = _target(here, match["path"])
        if path is None or (path.is_relative_to(DOCS) and here.is_relative_to(DOCS)):
            return match[0]
        return match["before"] + os.path.relpath(place(path), os.path.dirname(page.file.src_uri) or ".")

    return _outside_of_code(markdown, lambda text: _LINK.sub(on_the_site, text))


def outside(page: Path) -> list[Path]:
    """The files outside docs/ that a page links to."""
    found: list[Path] = []

    def note(text: str) -> str:
        found.extend(path for match in _LINK.finditer(text) if (path := _target(page, match["path"])) is not None)
        return text

    _outside_of_code(page.read_text(encoding="utf-8"), note)
    return [path for path in found if not path.is_relative_to(DOCS)]


def place(path: Path) -> str:
    """Where a file stands among the site's sources: `docs/log.md` -> log.md, `README.md` -> checkout/README.md."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    name = f"{COPIES}/{path.relative_to(ROOT).as_posix()}"
    return f"{name}.md" if path.suffix == ".py" else name


def source(src_uri: str) -> Path:
    """The file of the checkout that a page of the site is made from."""
    folder, _, rest = src_uri.partition("/")
    return ROOT / rest.removesuffix(".py.md") if folder == COPIES else DOCS / src_uri


def _target(page: Path, link: str) -> Path | None:
    """The file of this checkout that a link in a page means; None where there is none."""
    path = Path(os.path.normpath(page.parent / link))
    return path if path.is_file() and path.is_relative_to(ROOT) else None


def _as_file(path: Path, config: MkDocsConfig) -> File:
    if path.suffix == ".py":
        shown = f"# `{path.relative_to(ROOT)}`\n\n```python\n{path.read_text(encoding='utf-8')}```\n"
        return File.generated(config, place(path), content=shown)
    return File.generated(config, place(path), abs_src_path=str(path))


def _outside_of_code(markdown: str, change: Callable[[str], str]) -> str:
    """Markdown with everything changed but fenced code."""
    pieces, end = [], 0
    for fence in _FENCE.finditer(markdown):
        pieces += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*pieces, change(markdown[end:])])
