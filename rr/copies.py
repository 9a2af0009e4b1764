"""Copies of a user's model, whatever its modules keep: tensors of a training step, locks, files, writers, trainers."""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, EllipsisType, FunctionType, MethodType
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rr.errors import InputError, first_line

Model = TypeVar("Model", bound=nn.Module)

_CONTAINERS = (list, tuple, set, frozenset, Mapping)
_ATOMS = (type(None), bool, int, float, complex, str, bytes, range, type, property, EllipsisType)
_ATOMS += (FunctionType, BuiltinFunctionType, weakref.ref)  # a copy takes all of these as they are


def copy_of(model: Model, stand_ins: Mapping[int, object] | None = None) -> Model:
    """A deep copy of a model.

    Two kinds of things on its modules can't be copied as they are. Tensors with a history (an activation that a loss
    reads, the weight that `weight_norm` has worked out) come without it. Objects that hold something that exists once
    (a lock, a file, a process group, a generator) are shared with the model.

    Args:
        model: the model, or any module.
        stand_ins: id of an object within it -> what takes its place in the copy (a memo of `copy.deepcopy`).

    Raises:
        InputError: if something else can't be copied; it names the module and the attribute.
    """
    finder = _Uncopyable({**(stand_ins or {})})
    for module in model.modules():
        if id(module) not in finder.memo:
            finder.visit(module)
    try:
        return copy.deepcopy(model, dict(finder.memo))
    except Exception as error:  # whatever a user's __deepcopy__ or __getstate__ raises
        raise InputError(
            f"the model can't be copied: {_culprit(model, finder.memo) or type(model).__name__} can't "
            f"({first_line(error)}). Keep it outside the model, or give its class a __deepcopy__"
        ) from error


class OwnTensors(TorchDispatchMode):
    """Context: notes which of a model's own tensors are read, which a copy of it that runs here has no business with.

    A hook or a function that was put on a module may hold that module, or another one, in a closure: every copy then
    goes on with the model's own weights.

    Args:
        model: the model, of which a copy is run.
    """

    supports_higher_order_operators = True  # torch.cond

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        tensors = [*model.named_parameters(), *model.named_buffers()]
        self._names = {_place(tensor): name for name, tensor in tensors if tensor.numel() and _place(tensor)}
        self._read: dict[str, None] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs or {})):
            if isinstance(leaf, Tensor) and (name := self._names.get(_place(leaf))):
                self._read[name] = None
        return function(*args, **(kwargs or {}))

    def check(self) -> None:
        """Check that none was read.

        Raises:
            InputError: if any was, by name.
        """
        if self._read:
            raise InputError(
                f"a copy of the model still reads the model's own {', '.join(list(self._read)[:3])}: a hook, or a "
                "forward that was put on a module, holds that module in a closure. Let a hook take it from its first "
                "argument, and give a module a forward by types.MethodType(function, module)"
            )


def _place(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except NotImplementedError:  # a tensor that has no memory of this kind
        return id(tensor)


class _Uncopyable:
    """A walk through what modules hold, that notes what must not be copied.

    Attributes:
        memo: id -> what takes an object's place in a copy.
    """

    def __init__(self, memo: dict[int, object]) -> None:
        self.memo = memo
        self._is_copyable: dict[int, bool] = {}
        self._seen: list[object] = []  # so that no id is used twice while this walk lasts

    def visit(self, value: object) -> bool:
        """Whether a copy of `value` can be made; one that must be shared is in the memo then."""
        if isinstance(value, _ATOMS) or id(value) in self.memo:
            return True
        if id(value) not in self._is_copyable:
            self._seen.append(value)
            self._is_copyable[id(value)] = True  # while its own parts are looked at
            self._is_copyable[id(value)] = self._visit(value)
        return self._is_copyable[id(value)]

    def _visit(self, value: object) -> bool:
        if isinstance(value, Tensor):
            if value.grad_fn is not None:
                self.memo[id(value)] = value.detach().clone()
            return True
        copyable = all([self.visit(part) for part in _parts(value)])  # a list: all are visited
        if isinstance(value, (nn.Module, *_CONTAINERS)):
            return True  # what can't be copied in them is shared by itself
        if copyable and _has_state(value):
            return True
        self.memo[id(value)] = value
        return False


def _parts(value: object) -> Iterator[Any]:
    """What a copy of an object copies as well."""
    if isinstance(value, Mapping):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, _CONTAINERS):
        yield from value
    elif isinstance(value, MethodType):
        yield value.__self__
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, nn.Module) or not hasattr(value, "__deepcopy__"):
        yield from list(getattr(value, "__dict__", {}).values())


def _has_state(value: object) -> bool:
    """Whether Python knows how to make another object of this state."""
    if isinstance(value, (MethodType, functools.partial)) or hasattr(value, "__deepcopy__"):
        return True
    try:
        value.__reduce_ex__(4)
    except Exception:  # a TypeError by Python's own classes, anything by those of extensions
        return False
    return True


def _culprit(model: nn.Module, memo: Mapping[int, object]) -> str | None:
    """The attribute, with its module, that alone can't be copied."""
    others = {id(module): module for module in model.modules()}
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute in ("_modules", "_parameters", "_buffers"):
                continue
            try:
                copy.deepcopy(value, {**memo, **others})
            except Exception:  # the one that is looked for
                return f"{attribute!r} of {name or 'the model'} ({type(value).__name__})"
    return None
