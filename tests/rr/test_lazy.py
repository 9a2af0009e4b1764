"""Packages whose names are imported at their first use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import base_model
import rr

INIT = """
from typing import TYPE_CHECKING

from rr.lazy import lazy_exports

if TYPE_CHECKING:
    from . import spare
    from kitchen.oven import bake, clean
if not TYPE_CHECKING:
    from json import dumps

here = 1
__getattr__, __dir__ = lazy_exports(__name__, __file__)
"""


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package whose module counts how often it is imported, and is asked for a name."""
    (tmp_path / "kitchen").mkdir()
    (tmp_path / "kitchen" / "__init__.py").write_text(INIT)
    (tmp_path / "kitchen" / "oven.py").write_text("bake, clean = object(), object()\n")
    (tmp_path / "kitchen" / "spare.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield import_module("kitchen")
    for name in [name for name in sys.modules if name.partition(".")[0] == "kitchen"]:
        del sys.modules[name]


def test_a_name_is_imported_when_it_is_first_used(kitchen: ModuleType) -> None:
    assert "kitchen.oven" not in sys.modules
    assert "bake" not in vars(kitchen)
    bake = kitchen.bake
    assert bake is sys.modules["kitchen.oven"].bake
    assert vars(kitchen)["bake"] is bake  # from now on without a detour
    assert "clean" not in vars(kitchen)


def test_names_are_listed_without_an_import(kitchen: ModuleType) -> None:
    listed = dir(kitchen)
    assert {"here", "bake", "clean", "lazy_exports"} <= set(listed)
    assert listed == sorted(listed)
    assert "kitchen.oven" not in sys.modules


def test_what_is_not_there_is_said_as_python_says_it(kitchen: ModuleType) -> None:
    assert not hasattr(kitchen, "fridge")
    with pytest.raises(AttributeError, match="module 'kitchen' has no attribute 'fridge'"):
        _ = kitchen.fridge
    del kitchen.dumps
    assert not hasattr(kitchen, "dumps")  # it stands under another condition
    assert "spare" not in dir(kitchen)  # a module: it has no other to be imported from


@pytest.mark.parametrize("package", [rr, base_model], ids=["rr", "base_model"])
def test_what_a_package_offers_is_there(package: ModuleType) -> None:
    assert set(package.__all__) <= set(dir(package))
    assert all(getattr(package, name) is not None for name in package.__all__)
