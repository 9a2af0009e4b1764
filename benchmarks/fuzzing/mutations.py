"""A file's bytes, or what it holds, changed at random in ways that readers stumble over."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

# Numbers that sizes, offsets and counts go wrong at, in the widths that formats write them in.
EDGES = tuple(
    sign * (1 << bits) + step for bits in (0, 7, 8, 15, 16, 31, 32, 63) for sign in (1, -1) for step in (-1, 0)
)
MOST_EDITS = 6


def mutated_bytes(data: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    """One to six edits of a file.

    Args:
        data: the file.
        others: files that parts are taken from.
        draw: the source of chance.
    """
    found = bytearray(data)
    for _ in range(draw.randint(1, MOST_EDITS)):
        draw.choice(_EDITS)(found, others, draw)
    return bytes(found)


def _flip(data: bytearray, others: Sequence[bytes], draw: random.Random) -> None:
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _number(data: bytearray, others: Sequence[bytes], draw: random.Random) -> None:
    """An edge case where a number of 1 to 8 bytes may stand."""
    width = draw.choice((1, 2, 4, 8))
    place = draw.randrange(max(len(data) - width, 0) + 1)
    data[place : place + width] = (draw.choice(EDGES) % (1 << 8 * width)).to_bytes(
        width, draw.choice(("little", "big"))
    )


def _cut(data: bytearray, others: Sequence[bytes], draw: random.Random) -> None:
    del data[draw.randrange(len(data) + 1) :]


def _remove(data: bytearray, others: Sequence[bytes], draw: random.Random) -> None:
    place = draw.randrange(len(data) + 1)
    del data[place : place + draw.randint(1, 64)]


def _insert(data: bytearray, others: Sequence[bytes], draw: random.Random) -> None:
    place = draw.randrange(len(data) + 1)
    data[place:place] = draw.randbytes(draw.randint(1, 64))


def _repeat(data: bytearray, others: Sequence[bytes], draw: random.Random) -> None:
    place = draw.randrange(len(data) + 1)
    data[place:place] = data[place : place + draw.randint(1, 256)] * draw.randint(1, 8)


def _zero(data: bytearray, others: Sequence[bytes], draw: random.Random) -> None:
    place = draw.randrange(len(data) + 1)
    part = data[place : place + draw.randint(1, 512)]
    data[place : place + len(part)] = bytes(len(part))


def _splice(data: bytearray, others: Sequence[bytes], draw: random.Random) -> None:
    """A piece of another file over one of this."""
    other = draw.choice(others)
    start, place = draw.randrange(len(other) + 1), draw.randrange(len(data) + 1)
    piece = other[start : start + draw.randint(1, 512)]
    data[place : place + len(piece)] = piece


_EDITS = (_flip, _flip, _number, _number, _cut, _remove, _insert, _repeat, _zero, _splice)


def mutated_value(value: Any, odd: Sequence[Callable[[random.Random], Any]], draw: random.Random) -> Any:
    """A copy of nested dicts and lists in which one to three places hold something else, or are gone.

    Args:
        value: what a file holds.
        odd: makers of what is put in.
        draw: the source of chance.
    """
    found = copy.deepcopy(value)
    for _ in range(draw.randint(1, 3)):
        found = _changed(found, odd, draw)
    return found


def _changed(value: Any, odd: Sequence[Callable[[random.Random], Any]], draw: random.Random) -> Any:
    """One place in it, the likelier the higher up it is."""
    if not isinstance(value, (dict, list)) or not value or draw.random() < 0.15:
        return draw.choice(odd)(draw)
    key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
    if draw.random() < 0.1:
        del value[key]
    elif isinstance(value, dict) and draw.random() < 0.1:
        value[draw.choice(ODD_NAMES)] = value.pop(key)
    else:
        value[key] = _changed(value[key], odd, draw)
    return value


ODD_NAMES = ("", "../x", "a\x1b[2J", "a.b" * 500, "é\u202e", "state_dict", "deps", "0")


def _edge(draw: random.Random) -> Any:
    return draw.choice(EDGES)


def _huge(draw: random.Random) -> Any:
    return draw.choice((10**30, -(10**400), 1e308, math.inf, -math.inf, math.nan))


def _plain(draw: random.Random) -> Any:
    return draw.choice((None, True, "", "x", "\x1b]0;x\x07", "9" * 5000, 0.5, [], {}, [[]], {"a": None}, [None] * 3))


def _deep(draw: random.Random) -> Any:
    found: Any = 0
    for _ in range(draw.choice((10, 300))):
        found = [found] if draw.random() < 0.5 else {"a": found}
    return found


PLAIN_VALUES = (_edge, _huge, _plain, _plain, _deep)


def _tensor(draw: random.Random) -> Any:
    shape = draw.choice(((), (0,), (1,), (3, 0), (16, 1, 3, 3), (2, 2, 2, 2, 2, 2)))
    kinds = (
        torch.float16,
        torch.bfloat16,
        torch.float64,
        torch.int64,
        torch.bool,
        torch.complex64,
        torch.float8_e4m3fn,
    )
    return torch.zeros(shape, dtype=draw.choice(kinds))


def _odd_tensor(draw: random.Random) -> Any:
    return draw.choice(
        (
            torch.full((16,), math.nan),
            torch.full((16,), -1.0),
            torch.zeros(1).expand(1 << 40),
            torch.zeros(1).expand(1 << 20, 1 << 10),
            torch.eye(3).to_sparse(),
            torch.zeros(3, device="meta"),
            torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
            torch.zeros(4, 4).t()[1:, ::2],
            torch.nn.Parameter(torch.ones(2)),
        )
    )


TENSORS = (*PLAIN_VALUES, _tensor, _odd_tensor)
