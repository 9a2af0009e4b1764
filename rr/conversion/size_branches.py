"""Branches on sizes that all sizes of a proof take in the same way (`if x.shape[2] > 512`): a proof says nothing there.

Nor does it where sizes are rounded, and always come to the same number (`1 + x.shape[2] // 128`). A copy of the model
runs once more at each size of the proof. Sizes of tensors are numbers there that notice how they are compared and
rounded, and so are numbers made of them; not those that a number with a point is multiplied by (`0.5 * size`), nor
what `int(...)`, `len(...)` and functions of `math` other than `ceil` and `floor` make of them.
"""

from __future__ import annotations

import linecache
import math
import operator
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rr.conversion.proof import outputs_of
from rr.errors import first_line
from rr.graph import ExampleInputs

_TORCH = str(Path(torch.__file__).parent)
_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_ARITHMETIC = ("add", "sub", "mul", "truediv", "mod", "pow")
_ROUNDING = {"floordiv": "//", "rshift": ">>"}
_OF_ONE = ("neg", "pos", "abs")
_TO_WHOLE = {"ceil": math.ceil, "floor": math.floor, "round": round, "trunc": math.trunc, "int": int}
_Place = tuple[str, int, int, str]  # file, line, the instruction there (a line may have several), what it does
_EQUAL = {"==": True, "!=": False}  # how these come out for equal numbers


def one_way_branches(copy: nn.Module, inputs: Sequence[ExampleInputs]) -> tuple[str, ...]:
    """Where a forward compares or rounds sizes of its input, always with the same result: `net.py:12 (27 > 512)`.

    The sizes differ all the same. Left out are checks (`assert`, `raise`), behind which nothing is computed, and what
    is always equal.

    Args:
        copy: a copy of the model, which is cast to float32 in place.
        inputs: at each of the sizes; the model takes them.

    Returns:
        The forward itself where it fails with such numbers, so that nothing is known of it.
    """
    seen: dict[_Place, _Seen] = {}
    try:
        for each in inputs:
            with _CountedSizes(seen):
                outputs_of(copy, each, torch.float32)
    except Exception as error:  # whatever a forward raises that asks for plain numbers; nothing depends on this run
        return (f"the forward (which of them it does can't be followed: {first_line(error)})",)
    return tuple(
        f"{Path(file).name}:{line} ({_in_words(sign, max(found.operands))})"
        for (file, line, _, sign), found in seen.items()
        if found.is_one_way(sign) and not _is_check(file, line)
    )


@dataclass
class _Seen:
    """What was compared or rounded, and how it came out."""

    operands: set[tuple[float, ...]] = field(default_factory=set)
    results: set[float] = field(default_factory=set)

    def is_one_way(self, sign: str) -> bool:
        return len(self.operands) > 1 and len(self.results) == 1 and _EQUAL.get(sign) not in self.results


class _CountedSizes(TorchFunctionMode):
    """Context: sizes that are asked of tensors notice what they are compared with."""

    def __init__(self, seen: dict[_Place, _Seen]) -> None:
        super().__init__()
        self._seen = seen

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function == Tensor.shape.__get__ or function in (Tensor.size, Tensor.numel, Tensor.nelement):
            return self._watched(result)
        return result

    def _watched(self, result: object) -> object:
        if isinstance(result, torch.Size):
            return torch.Size([_size(each, self._seen) for each in result])
        return _size(result, self._seen)


class _Int(int):
    seen: dict[_Place, _Seen]
    __hash__ = int.__hash__

    def __bool__(self) -> bool:
        return _noted(self, "!=", [0], int(self) != 0, sys._getframe(1))


class _Float(float):
    seen: dict[_Place, _Seen]
    __hash__ = float.__hash__


def _size(value: object, seen: dict[_Place, _Seen]) -> object:
    """A number that notices what it is compared with; any other value as it is."""
    if type(value) not in (int, float):
        return value
    watched = _Int(value) if type(value) is int else _Float(value)
    watched.seen = seen
    return watched


def _noted(number: _Int | _Float, sign: str, others: Sequence[object], result: object, frame: FrameType) -> Any:
    place = frame.f_code.co_filename, frame.f_lineno, frame.f_lasti, sign
    are_numbers = all(isinstance(other, (int, float)) for other in (*others, result))
    if are_numbers and not place[0].startswith(_TORCH):
        found = number.seen.setdefault(place, _Seen())
        found.operands.add((_plain(number), *map(_plain, others)))
        found.results.add(_plain(result))
    return result


def _plain(value: Any) -> Any:
    """The same number as one that notices nothing."""
    return float(value) if isinstance(value, _Float) else int(value) if isinstance(value, _Int) else value


def _comparing(name: str) -> Callable[[Any, object], Any]:
    compare, sign = getattr(operator, name), _COMPARISONS[name]
    return lambda self, other: _noted(self, sign, [other], compare(_plain(self), _plain(other)), sys._getframe(1))


def _computing(name: str) -> Callable[[Any, object], Any]:
    compute = getattr(operator, name)
    return lambda self, other: _size(compute(_plain(self), _plain(other)), self.seen)


def _computing_behind(name: str) -> Callable[[Any, object], Any]:
    compute = getattr(operator, name)
    return lambda self, other: _size(compute(_plain(other), _plain(self)), self.seen)


def _rounding(name: str) -> Callable[[Any, object], Any]:
    divide, sign = getattr(operator, name), _ROUNDING[name]

    def rounded(self: _Int | _Float, other: object) -> object:
        result = divide(_plain(self), _plain(other))
        return _size(_noted(self, sign, [other], result, sys._getframe(1)), self.seen)

    return rounded


def _divided_with_rest(self: _Int | _Float, other: object) -> tuple[object, ...]:
    quotient, rest = divmod(_plain(self), _plain(other))
    return _size(_noted(self, "//", [other], quotient, sys._getframe(1)), self.seen), _size(rest, self.seen)


def _computing_alone(name: str) -> Callable[[Any], Any]:
    compute = getattr(operator, name)
    return lambda self: _size(compute(_plain(self)), self.seen)


def _to_whole(name: str) -> Callable[..., Any]:
    convert = _TO_WHOLE[name]

    def whole(self: _Float, *digits: int) -> object:
        result = _noted(self, name, [], convert(_plain(self), *digits), sys._getframe(1))
        return result if name == "int" else _size(result, self.seen)  # which Python asks to be a plain number

    return whole


for _kind in (_Int, _Float):
    for _name in _COMPARISONS:
        setattr(_kind, f"__{_name}__", _comparing(_name))
    for _name in _OF_ONE:
        setattr(_kind, f"__{_name}__", _computing_alone(_name))
    _kind.__divmod__ = _divided_with_rest
    for _name in _ARITHMETIC:
        setattr(_kind, f"__{_name}__", _computing(_name))
        setattr(_kind, f"__r{_name}__", _computing_behind(_name))
for _kind, _name in ((_Int, "floordiv"), (_Float, "floordiv"), (_Int, "rshift")):
    setattr(_kind, f"__{_name}__", _rounding(_name))
for _name in _TO_WHOLE:
    setattr(_Float, f"__{_name}__", _to_whole(_name))


def _in_words(sign: str, operands: Sequence[float]) -> str:
    return f"{operands[0]} {sign} {operands[1]}" if len(operands) > 1 else f"{sign}({operands[0]})"


def _is_check(file: str, line: int) -> bool:
    """Whether the other result of a comparison is an error."""
    here, following = (linecache.getline(file, number).strip() for number in (line, line + 1))
    return here.startswith(("assert", "_assert", "torch._assert", "torch._check")) or following.startswith("raise")
