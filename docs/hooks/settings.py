"""MkDocs hook: a table of the method's settings, from the dataclass that has them, in place of `<!-- settings -->`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout, for rr.config: it needs no torch

from rr.config import cut_config, fast_config, paper_config
from rr.settings import Share, settings_of

PLACE = "<!-- settings -->"


def on_page_markdown(markdown: str, **kwargs: object) -> str:
    """The page with the table in its place."""
    return markdown.replace(PLACE, table()) if PLACE in markdown else markdown


def table() -> str:
    """A row for each setting: its value in the three ready configurations, and its help text."""
    ready = [list(settings_of(config())) for config in (paper_config, fast_config, cut_config)]
    rows = ["| setting | `paper_config` | `fast_config` | `cut_config` | what |", "| --- | --- | --- | --- | --- |"]
    for same in zip(*ready, strict=True):
        values = " | ".join(f"`{_shown(setting.value)}`" for setting in same)
        rows.append(f"| `{same[0].name}` | {values} | {same[0].field.metadata['help']} |")
    return "\n".join(rows)


def _shown(value: object) -> str:
    return f"Share({value:g})" if isinstance(value, Share) else repr(value)
