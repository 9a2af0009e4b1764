"""Settings: nested dataclasses under flat names, shares of a run, and what a wrong value is told."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from rr.errors import InputError
from rr.settings import Share, changed, check, flat, plain, setting, settings_of

HALF = Share(0.5)


@dataclass(frozen=True)
class Oven:
    heat: int = setting("degrees", 180, name="oven_heat", aliases=("temperature",))
    racks: tuple[int, ...] = setting("which racks", (1, 3))
    fan: bool = setting("with the fan", False, topic="noise", choices=(False, True))

    def __post_init__(self) -> None:
        check(self, {"heat must be at least 0": self.heat >= 0, "racks must be given, or fan": self.racks or self.fan})


@dataclass(frozen=True)
class Kitchen:
    oven: Oven = field(default_factory=Oven)
    share: Share = setting("of the day", HALF)  # noqa: RUF009 - it makes a field


@dataclass(frozen=True)
class House:
    kitchen: Kitchen = field(default_factory=Kitchen)
    floors: int = setting("how many", 2)


def test_every_setting_is_found_with_all_that_is_known_of_it() -> None:
    found = {each.name: each for each in settings_of(House())}
    assert list(found) == ["oven_heat", "racks", "fan", "share", "floors"]
    assert [each.path for each in found.values()] == [
        ("kitchen", "oven", "heat"),
        ("kitchen", "oven", "racks"),
        ("kitchen", "oven", "fan"),
        ("kitchen", "share"),
        ("floors",),
    ]
    assert [each.topic for each in found.values()] == ["oven", "oven", "noise", "kitchen", ""]
    assert [each.kind for each in found.values()] == [int, tuple[int, ...], bool, Share, int]
    assert [each.value for each in found.values()] == [180, (1, 3), False, 0.5, 2]
    assert [each.aliases for each in found.values()] == [("temperature",), (), (), (), ()]
    assert found["fan"].field.metadata == {"help": "with the fan", "topic": "noise", "choices": (False, True)}


def test_values_are_plain() -> None:
    """As JSON gives them back."""
    assert flat(House()) == {"oven_heat": 180, "racks": [1, 3], "fan": False, "share": 0.5, "floors": 2}
    assert flat(House()) == json.loads(json.dumps(flat(House())))
    found = plain((Share(0.5), (1, 2)))
    assert found == [0.5, [1, 2]]
    assert type(found[0]) is float


def test_several_are_changed_at_once() -> None:
    """No check sees half of the changes: without racks the fan must be on."""
    house = changed(House(), racks=(), fan=True, temperature=200, floors=3)
    assert flat(house) == {"oven_heat": 200, "racks": [], "fan": True, "share": 0.5, "floors": 3}
    assert changed(house, racks=(1, 3), fan=False, oven_heat=180, floors=2) == House()


def test_what_cannot_be_is_told_by_its_flat_name_and_value() -> None:
    with pytest.raises(InputError, match=r"^oven_heat must be at least 0, not -5$"):
        Oven(heat=-5)
    with pytest.raises(InputError, match=r"^racks must be given, or fan, not \(\)$"):
        changed(House(), racks=())
    with pytest.raises(InputError, match=r"^House has no setting 'ovenheat': did you mean oven_heat\?$"):
        changed(House(), ovenheat=1)
    with pytest.raises(InputError, match=r"there are fan, floors, oven_heat, racks, share$"):
        changed(House(), xyz=1)


@pytest.mark.parametrize("text", ["25%", "0.25", " 25% ", "2.5e-1\n"])
def test_shares_are_read(text: str) -> None:
    assert Share.read(text) == Share(0.25)
    assert Share.read(text).of(200) == 50.0


def test_a_share_shows_all_of_its_digits() -> None:
    assert repr(Share(0.025)) == "Share(0.025)"
    assert Share(1).of(7) == 7
