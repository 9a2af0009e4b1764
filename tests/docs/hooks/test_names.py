"""Entries of several names in docstrings."""

from __future__ import annotations

from tests import scripts

names = scripts.load("docs/hooks/names.py")

DOCSTRING = """Do it.

Args:
    model, images: as given,
        over two lines.
    last: of all, a, b: none of these.

Raises:
    InputError: if lr, momentum: stay as they are."""


def test_each_name_has_an_entry() -> None:
    assert names.split_names(DOCSTRING) == DOCSTRING.replace(
        "    model, images: as given,\n        over two lines.\n",
        "    model: as given,\n        over two lines.\n    images: as given,\n        over two lines.\n",
    )


def test_at_the_end_of_a_docstring() -> None:
    assert names.split_names("Args:\n    a, b: numbers") == "Args:\n    a: numbers\n    b: numbers\n"
