"""A model's tensors, and what it is called with."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from rr.copies import copy_of
from rr.errors import InputError

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True)
class ExampleInputs:
    """What a model is called with: `model(*args, **kwargs)`.

    Attributes:
        args: the positional arguments, tensors or lists, tuples and dicts of tensors.
        kwargs: the keyword arguments, of the same kinds.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @classmethod
    def of(cls, given: Inputs | ExampleInputs) -> ExampleInputs:
        """A tensor or a sequence as positional arguments, a dict as keyword arguments.

        Raises:
            InputError: if there is no tensor in it, or one without a batch dimension.
        """
        if isinstance(given, ExampleInputs):
            return given
        if isinstance(given, Mapping):
            inputs = cls((), dict(given))
        elif isinstance(given, Tensor | Sequence):
            inputs = cls((given,) if isinstance(given, Tensor) else tuple(given), {})
        else:
            inputs = cls((), {})
        if not inputs.tensors or not all(tensor.dim() > 0 and len(tensor) > 0 for tensor in inputs.tensors):
            raise InputError(
                "example_inputs must be a tensor with a batch dimension first (at least 1), a sequence of what the "
                "model is called with, or a dict of its keyword arguments"
            )
        return inputs

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, in the order of the arguments."""
        return [leaf for leaf in tree_leaves((self.args, dict(self.kwargs))) if isinstance(leaf, Tensor)]

    @property
    def others(self) -> list[str]:
        """The arguments that hold something other than tensors, in words: `mode='nearest'`, `argument 2: None`."""
        named = [(f"argument {place}: ", value) for place, value in enumerate(self.args, start=1)]
        named += [(f"{name}=", value) for name, value in self.kwargs.items()]
        found = ((name, [leaf for leaf in tree_leaves(value) if not isinstance(leaf, Tensor)]) for name, value in named)
        return [name + ", ".join(map(reprlib.repr, leaves)) for name, leaves in found if leaves]

    @property
    def batch_size(self) -> int:
        """The first dimension of the first tensor."""
        return self.tensors[0].shape[0]

    def mapped(self, change: Callable[[Tensor], Tensor]) -> ExampleInputs:
        """The same with each tensor changed."""
        args, kwargs = tree_map_only(Tensor, change, (self.args, dict(self.kwargs)))
        return ExampleInputs(args, kwargs)

    def like(self, model: nn.Module) -> ExampleInputs:
        """The same on the model's device and, where they are floating-point, in its type."""
        anchor = next(model.parameters(), None)
        if anchor is None:
            return self
        return self.mapped(lambda item: item.to(anchor.device, anchor.dtype if item.is_floating_point() else None))

    def call(self, model: nn.Module) -> Any:
        """What the model returns for them; they stay as they are, even if its forward changes its inputs in place."""
        own = self.mapped(Tensor.clone)
        return model(*own.args, **own.kwargs)


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, those with several names by each of them."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def in_float64(tensor: Tensor) -> Tensor:
    """The values on the CPU, in float64 if they are floating-point: in that order, as not all devices have the type."""
    values = tensor.detach().cpu()
    return values.double() if values.is_floating_point() else values


def bare_in_float64(module: nn.Module) -> nn.Module:
    """A copy on the CPU, in float64 and eval mode, without the hooks behind its own forward."""
    bare = copy_of(module)
    bare._forward_hooks.clear()
    return bare.cpu().double().eval()  # in that order: not all devices have float64


class eval_mode:
    """Context: every module in eval mode, and each module's own mode restored afterwards."""

    def __init__(self, model: nn.Module) -> None:
        self.training = [(module, module.training) for module in model.modules()]
        self.model = model

    def __enter__(self) -> nn.Module:
        return self.model.eval()

    def __exit__(self, *_: object) -> None:
        for module, training in self.training:
            module.training = training
