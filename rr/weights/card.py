"""What a pruned network's file says about it, as JSON in the file's metadata, and how a stranger's is checked."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rr.errors import InputError

CARD_KEY = "resrep"  # in the metadata of a .safetensors file
FORMAT = 1  # of the card; a reader refuses a newer one


@dataclass(frozen=True)
class NetworkCard:
    """What a pruned network's file says about it, beside its tensors. All of it may be left out.

    Attributes:
        architecture: of the full network: `torchvision/NAME`, `timm/NAME`, or one of this project's names.
        keywords: what its constructor is called with (`num_classes`, say), as plain values.
        classes: the names of its outputs, in order.
        mean, std: per channel, of values in 0 ... 1, that images are normalised with.
        in_channels: channels of its images.
        image_size: side of its images, in pixels.
        recipe: how it was trained and pruned, as plain values.
        proof: what the conversion compared (`ConversionReport.as_dict()`).
        widths: width of every layer in building order; `save_pruned` fills it in.
        version: of the library that wrote the file; `save_pruned` fills it in.
    """

    architecture: str | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    in_channels: int | None = None
    image_size: int | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    proof: Mapping[str, Any] = field(default_factory=dict)
    widths: tuple[int, ...] = ()
    version: str = ""

    def __post_init__(self) -> None:
        for name in ("classes", "mean", "std", "widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, is_right, what in _CHECKS:
            if not is_right(getattr(self, name)):
                raise InputError(f"what the network's card says as {name} is wrong: it must be {what}")
        if len(self.mean) != len(self.std) or (self.mean and self.in_channels not in (None, len(self.mean))):
            raise InputError("the network's card must have one mean and one std for each channel of the images")

    def to_json(self) -> str:
        """The card as text, with the number of its format."""
        try:
            return json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"the network's card must hold plain, finite values alone ({error})") from error

    @classmethod
    def from_json(cls, text: str, what: str) -> NetworkCard:
        """The card in a file's metadata.

        Args:
            text: the metadata.
            what: the file, for messages.

        Raises:
            InputError: if it isn't a card, is a newer one, or holds values of wrong types.
        """
        try:
            held = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{what} has metadata that aren't JSON: write or copy it again") from error
        version = held.pop("format", None) if isinstance(held, dict) else None
        if type(version) is not int or version < 1:
            raise InputError(f"{what} has metadata without a format's number: write or copy it again")
        if version > FORMAT:
            raise InputError(f"{what} is of format {version}, newer than this library's {FORMAT}: update resrep")
        known = {name: value for name, value in held.items() if name in cls.__dataclass_fields__}
        for name in ("classes", "mean", "std", "widths"):
            if not isinstance(known.get(name, []), list):
                raise InputError(f"{what} has {name} that aren't a list: write or copy it again")
        try:
            return cls(**known)
        except InputError as error:
            raise InputError(f"{what}: {error}") from error


def _is_text(value: object) -> bool:
    """Whether it can be shown on a terminal as it is: no control characters, nothing that turns the direction."""
    return isinstance(value, str) and value.isprintable()


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # JSON has whole numbers of any length


_TEXT = "text without control characters"
_CHECKS = (
    ("architecture", lambda value: value is None or _is_text(value), _TEXT),
    ("keywords", lambda value: isinstance(value, Mapping) and all(map(_is_text, value)), "names with values"),
    ("classes", lambda value: all(map(_is_text, value)), f"names, each {_TEXT}"),
    ("mean", lambda value: all(map(_is_number, value)), "finite numbers"),
    ("std", lambda value: all(_is_number(one) and one > 0 for one in value), "finite numbers above 0"),
    ("in_channels", lambda value: value is None or _is_count(value), "a whole number of at least 1"),
    ("image_size", lambda value: value is None or _is_count(value), "a whole number of at least 1"),
    ("recipe", lambda value: isinstance(value, Mapping), "names with values"),
    ("proof", lambda value: isinstance(value, Mapping), "names with values"),
    ("widths", lambda value: all(map(_is_count, value)), "whole numbers of at least 1"),
    ("version", _is_text, _TEXT),
)
