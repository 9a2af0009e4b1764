"""A network's card: what a stranger's file may not say."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rr.errors import InputError
from rr.weights import NetworkCard

CARD = NetworkCard(architecture="timm/x", classes=("Käse", "dog"), mean=(0.5,), std=(1,), in_channels=1, widths=(3, 4))


def test_a_card_comes_back() -> None:
    assert NetworkCard.from_json(CARD.to_json(), "a file") == CARD


def test_what_a_later_minor_version_adds_is_left_out() -> None:
    assert NetworkCard.from_json(json.dumps({**json.loads(CARD.to_json()), "later": 1}), "a file") == CARD


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", ["\x1b[2J"]),
        ("classes", ["a\nb"]),
        ("classes", ["\u202eb"]),
        ("classes", "ab"),
        ("classes", [1]),
        ("classes", {"a": 1}),
        ("architecture", "a\x00"),
        ("architecture", 1),
        ("keywords", []),
        ("mean", ["0.5"]),
        ("mean", [float("nan")]),
        ("mean", [10**400]),
        ("std", [float("inf")]),
        ("mean", [0.5, 0.5]),
        ("std", [0]),
        ("std", [True]),
        ("in_channels", 0),
        ("in_channels", 2),
        ("image_size", 3.5),
        ("recipe", "lr"),
        ("proof", [1]),
        ("widths", [0]),
        ("widths", [True]),
        ("widths", None),
        ("version", None),
        ("format", 2),
        ("format", "1"),
        ("format", None),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, value: object) -> None:
    text = json.dumps({**json.loads(CARD.to_json()), name: value})
    with pytest.raises(InputError, match=f"{name}|one mean and one std") as error:
        NetworkCard.from_json(text, "a file")
    assert "a file" in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "null", "[" * 100_000])
def test_text_that_is_no_card(text: str) -> None:
    with pytest.raises(InputError, match="a file has metadata"):
        NetworkCard.from_json(text, "a file")


def test_what_is_no_plain_value_is_refused() -> None:
    with pytest.raises(InputError, match="plain, finite values"):
        replace(CARD, recipe={"f": object()}).to_json()
