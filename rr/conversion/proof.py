"""What a proof is made of: exact copies, inputs of several sizes, and outputs."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rr.conversion.differences import difference_on_own_scale, error_floors, floors_for
from rr.copies import copy_of
from rr.errors import InputError, first_line
from rr.graph.exporting import without_autocast
from rr.graph.sizes import other_sizes, shape_in_words
from rr.graph.tensors import ExampleInputs, Inputs, eval_mode, in_float64
from rr.runtime import is_first

logger = logging.getLogger(__name__)

FLOAT64_TOLERANCE = 1e-10


class ConversionError(RuntimeError):
    """The converted model doesn't compute what the model in training computes."""


class ThresholdError(ConversionError, InputError):
    """Rows under the threshold, which a conversion drops, are alive."""


class _InFloat64(TorchDispatchMode):
    """Casts to narrower floating-point types (`x.float()` in a forward) go to float64, new tensors are of that type.

    Rounding in the middle of a network would hide all smaller differences from a proof.
    """

    supports_higher_order_operators = True  # torch.cond

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
    return copy_of(model, copies)


@dataclass(frozen=True)
class Probe:
    """Inputs and what a network makes of them.

    Attributes:
        inputs: in float64, on the CPU.
        outputs: in float64.
        floors: what the difference of other outputs is measured by (`error_floors`).
    """

    inputs: ExampleInputs
    outputs: list[Tensor]
    floors: list[Tensor] = dataclasses.field(default_factory=list)

    @property
    def shape(self) -> str:
        """`2x3x32x32`."""
        return shape_in_words(self.inputs)

    def measured(self, in_float32: Sequence[Tensor]) -> Probe:
        """The same with floors, from the network's outputs in float32."""
        return replace(self, floors=error_floors(self.outputs, in_float32))

    def measured_as(self, other: Probe) -> Probe:
        """The same with the floors of a probe of another size: float32 errs as much at all of them."""
        return replace(self, floors=floors_for(self.outputs, other.floors))

    def difference(self, outputs: Sequence[Tensor], *, rounded: bool = False) -> float:
        """How far other outputs are from these, each element on its own scale (`difference_on_own_scale`)."""
        return difference_on_own_scale(self.outputs, outputs, self.floors, rounded=rounded)


def probe_of(model: nn.Module, example_inputs: Inputs) -> Probe:
    """Inputs in the examples' shapes that show what a model in float64 computes, and its outputs.

    Random numbers, always the same (integers as they are); where the outputs would have NaN for those (a logarithm
    needs positive numbers), random ones in the examples' range, or the examples themselves.

    Raises:
        InputError: if the model doesn't run in float64 on the CPU, or has NaN for all of these.
    """
    examples = ExampleInputs.of(example_inputs).mapped(in_float64)
    for fill in (_normal, _within_range, _as_given):
        inputs = fill(examples)
        try:
            outputs = outputs_of(model, inputs, torch.float64)
        except Exception as error:  # whatever the user's forward raises
            raise InputError(
                f"the model doesn't run in float64 on the CPU, as it must for a proof ({first_line(error)}): let its "
                "forward take types and devices from its inputs and parameters"
            ) from error
        if not _have_nan(outputs):
            return Probe(inputs, outputs)
    raise InputError(
        "the model's outputs have NaN for random inputs and for the example inputs, so that nothing can be proven: "
        "give example inputs of the kind it is made for, and check that its training hasn't diverged"
    )


def probes_elsewhere(model: nn.Module, example_inputs: Inputs) -> Iterator[Probe]:
    """The same at the other sizes that the model takes: another batch, each dimension larger, all of them smaller."""
    for candidates in other_sizes(ExampleInputs.of(example_inputs).mapped(in_float64)):
        for candidate in candidates:
            if (probe := _tried(model, candidate)) is not None:
                yield probe
                break


def _tried(model: nn.Module, examples: ExampleInputs) -> Probe | None:
    """None where the model doesn't take inputs of this size."""
    for fill in (_normal, _within_range):
        inputs = fill(examples)
        try:
            outputs = outputs_of(model, inputs, torch.float64)
        except Exception:  # whatever the user's forward raises
            return None
        if outputs and not _have_nan(outputs):
            return Probe(inputs, outputs)
    return None


def in_float32(copy: nn.Module, probe: Probe) -> list[Tensor]:
    """What a copy of the model computes in float32, to which it is cast in place.

    Raises:
        InputError: if it doesn't run in float32.
    """
    try:
        return outputs_of(copy, probe.inputs, torch.float32)
    except Exception as error:  # whatever the user's forward raises
        raise InputError(
            f"a copy of the model doesn't run in float32 on the CPU, as it must for a proof ({first_line(error)}): let "
            "its forward take types and devices from its inputs and parameters, and keep no tensors from earlier calls"
        ) from error


def measured_probes(model: nn.Module, example_inputs: Inputs) -> list[Probe]:
    """The probes of a model in float64 at all sizes, with their floors; a copy of it is run in float32 for these."""
    first = probe_of(model, example_inputs)
    if not any(_says_something(output) for output in first.outputs) and is_first():
        logger.warning(
            "the model's outputs are the same number everywhere, or whole numbers alone, for inputs like the examples: "
            "what its channels do doesn't show in them, so little is proven by them. Give examples like real inputs, "
            "and a model that returns what it computes its answers from (logits, not classes)"
        )
    first = first.measured(in_float32(copy_of(model), first))
    return [first, *(probe.measured_as(first) for probe in probes_elsewhere(model, example_inputs))]


def _says_something(output: Tensor) -> bool:
    return output.is_floating_point() and output.numel() > 0 and bool((output != output.flatten()[0]).any())


def _have_nan(outputs: Sequence[Tensor]) -> bool:
    return any(output.isnan().any() for output in outputs)


def _normal(examples: ExampleInputs) -> ExampleInputs:
    generator = torch.Generator().manual_seed(0)
    return _floats(examples, lambda item: torch.randn(item.shape, generator=generator, dtype=torch.float64))


def _within_range(examples: ExampleInputs) -> ExampleInputs:
    generator = torch.Generator().manual_seed(0)

    def within(item: Tensor) -> Tensor:
        share = torch.rand(item.shape, generator=generator, dtype=torch.float64)
        return item.min() + share * (item.max() - item.min())

    return _floats(examples, within)


def _as_given(examples: ExampleInputs) -> ExampleInputs:
    return examples


def _floats(examples: ExampleInputs, fill: Callable[[Tensor], Tensor]) -> ExampleInputs:
    return examples.mapped(lambda item: fill(item) if item.is_floating_point() else item)


def outputs_of(model: nn.Module, inputs: ExampleInputs, dtype: torch.dtype) -> list[Tensor]:
    """The tensors that come out in eval mode, integers among them; what else there is (names, None) is left out.

    `model` and its floating-point inputs are cast to `dtype`, the model in place. What the forward draws at random is
    the same at each call, and leaves the process's own random numbers as they were.
    """
    cast = inputs.mapped(lambda item: item.to(dtype) if item.is_floating_point() else item)
    model.to(dtype)
    in_full = _InFloat64() if dtype == torch.float64 else nullcontext()
    with torch.no_grad(), eval_mode(model), _same_random_numbers(), without_autocast(), in_full:
        return _tensors(cast.call(model))


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    # `torch.manual_seed` formats the call stack for each kind of GPU that isn't there.
    seed = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
        seed(0)
        yield


def _tensors(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        output = [getattr(output, field.name) for field in dataclasses.fields(output)]
    return [tensor for value in output for tensor in _tensors(value)] if isinstance(output, list | tuple) else []
