"""The table of settings."""

from __future__ import annotations

from rr import ResRepConfig
from rr.settings import settings_of
from tests import scripts

settings = scripts.load("docs/hooks/settings.py")


def test_the_table_has_every_setting_as_the_ready_ones_have_it() -> None:
    rows = [row.split(" | ") for row in settings.table().splitlines()[2:]]
    assert [row[0] for row in rows] == [f"| `{setting.name}`" for setting in settings_of(ResRepConfig())]
    of_name = {row[0].strip("| `"): row[1:] for row in rows}
    assert of_name["score"][:3] == ["`'norm'`", "`'taylor'`", "`'norm'`"]
    assert of_name["warmup_steps"][:3] == ["`0`", "`Share(0.02)`", "`Share(1)`"]
    assert of_name["penalty"][3] == "lambda of the group-lasso penalty on compactor rows |"


def test_it_stands_in_its_place() -> None:
    assert settings.on_page_markdown("a\n\n<!-- settings -->\n\nb") == f"a\n\n{settings.table()}\n\nb"
    assert settings.on_page_markdown("a") == "a"
