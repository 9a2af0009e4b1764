"""What a proof is made of: exact copies, inputs, outputs, and how far two models' outputs are apart."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rr.errors import InputError, first_line
from rr.graph.tensors import ExampleInputs, Inputs, eval_mode, in_float64

FLOAT64_TOLERANCE = 1e-10


class ConversionError(RuntimeError):
    """The converted model doesn't compute what the model in training computes."""


class _InFloat64(TorchDispatchMode):
    """Casts to narrower floating-point types (`x.float()` in a forward) go to float64, new tensors are of that type.

    Rounding in the middle of a network would hide all smaller differences from a proof.
    """

    def __enter__(self) -> _InFloat64:
        self._default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.set_default_dtype(self._default)
        super().__exit__(*error)

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: Sequence[Any] = (), options: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(options or {})
        if options.get("dtype") in (torch.float32, torch.float16, torch.bfloat16):
            options["dtype"] = torch.float64
        return operation(*arguments, **options)


def exact_copy(model: nn.Module) -> nn.Module:
    """A copy in float64 on the CPU, made tensor by tensor: nowhere is there another copy in the model's own type."""
    copies = {}
    for tensor in (*model.parameters(), *model.buffers()):
        value = in_float64(tensor)
        if value.data_ptr() == tensor.data_ptr():
            value = value.clone()
        copies[id(tensor)] = nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value
    return copy.deepcopy(model, copies)


def inputs_and_outputs(model: nn.Module, example_inputs: Inputs) -> tuple[ExampleInputs, list[Tensor]]:
    """Inputs in the examples' shapes that show what a model in float64 computes, and its outputs for them.

    Random numbers, always the same (integers as they are); where the outputs would have NaN for those (a logarithm
    needs positive numbers), random ones in the examples' range, or the examples themselves.

    Raises:
        InputError: if the model doesn't run in float64 on the CPU, or has NaN for all of these.
    """
    for inputs in _inputs(example_inputs):
        try:
            outputs = outputs_of(model, inputs, torch.float64)
        except Exception as error:  # whatever the user's forward raises
            raise InputError(
                f"the model doesn't run in float64 on the CPU, as it must for a proof ({first_line(error)}): let its "
                "forward take types and devices from its inputs and parameters"
            ) from error
        if not any(output.isnan().any() for output in outputs):
            return inputs, outputs
    raise InputError(
        "the model's outputs have NaN for random inputs and for the example inputs, so that nothing can be proven: "
        "give example inputs of the kind it is made for, and check that its training hasn't diverged"
    )


def _inputs(example_inputs: Inputs) -> Iterator[ExampleInputs]:
    """Numbers in float64 on the CPU: normally distributed, evenly over the examples' range, the examples."""
    examples = ExampleInputs.of(example_inputs).mapped(in_float64)
    generator = torch.Generator().manual_seed(0)

    def normal(item: Tensor) -> Tensor:
        return torch.randn(item.shape, generator=generator, dtype=torch.float64)

    def within_range(item: Tensor) -> Tensor:
        share = torch.rand(item.shape, generator=generator, dtype=torch.float64)
        return item.min() + share * (item.max() - item.min())

    for of_item in (normal, within_range):
        yield examples.mapped(lambda item, of_item=of_item: of_item(item) if item.is_floating_point() else item)
    yield examples


def outputs_of(model: nn.Module, inputs: ExampleInputs, dtype: torch.dtype) -> list[Tensor]:
    """The tensors that come out in eval mode, integers among them; what else there is (names, None) is left out.

    `model` and its floating-point inputs are cast to `dtype`, the model in place.
    """
    cast = inputs.mapped(lambda item: item.to(dtype) if item.is_floating_point() else item)
    model.to(dtype)
    with torch.no_grad(), eval_mode(model), _InFloat64() if dtype == torch.float64 else nullcontext():
        return _tensors(cast.call(model))


def _tensors(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    return [tensor for value in output for tensor in _tensors(value)] if isinstance(output, list | tuple) else []


def difference_of(reference: Sequence[Tensor], others: Sequence[Tensor], *, rounded: bool = False) -> float:
    """The largest |a - b| over the largest finite |a|.

    Args:
        reference: a, tensor by tensor.
        others: b.
        rounded: whether b is rounded, or not meant to be quite the same; integers (the index of the largest output,
            say) may then differ, and don't count.

    Returns:
        That difference; infinite where integers, booleans or infinities aren't equal, NaN where there is one.
    """
    largest = gap = 0.0
    for a, b in zip(reference, others, strict=True):
        if not (a.is_floating_point() or a.is_complex()):
            if not rounded and not torch.equal(a, b):
                return math.inf
        elif a.numel():
            b = b.to(a.dtype)
            between = (a - b).abs().masked_fill(a.isinf() & (a == b), 0.0)  # inf - inf is NaN
            if between.isnan().any():
                return math.nan
            gap = max(gap, float(between.max()))
            largest = max(largest, float(a.abs().masked_fill(a.isinf(), 0.0).max()))
    return gap / largest if largest > 0 else gap
