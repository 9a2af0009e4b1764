"""The network as a list of ATen operations: `torch.export` once, with the module behind every parameter."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from rr.compactors import CHILD, compactors_bypassed

logger = logging.getLogger(__name__)

Inputs = torch.Tensor | Sequence[torch.Tensor]


@dataclass(frozen=True)
class Trace:
    """An exported forward pass in eval mode, without its compactors; with the heads that only training runs, if any.

    nodes:       the operations in order of execution (placeholders and the output included)
    parameters:  placeholder name -> the parameter's or buffer's name in the model
    user_inputs: names of the placeholders that are the network's inputs
    batch:       the examples' batch size
    evaluated:   the parameters that the forward in eval mode reads
    macs:        multiply-accumulates per example of the whole network, half of what torch's FLOP counter counts
    """

    nodes: tuple[fx.Node, ...]
    parameters: dict[str, str]
    user_inputs: frozenset[str]
    batch: int
    evaluated: frozenset[str]
    macs: int

    def parameter(self, argument: object) -> str | None:
        """The model's name for a node's argument, None when that is no parameter or buffer."""
        return self.parameters.get(argument.name) if isinstance(argument, fx.Node) else None


def as_inputs(example_inputs: Inputs) -> tuple[torch.Tensor, ...]:
    """Example inputs as the tuple of tensors that the model is called with."""
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
    if not inputs or not all(isinstance(item, torch.Tensor) and item.dim() > 0 for item in inputs):
        raise ValueError("example_inputs must be a tensor, or a sequence of tensors, with a batch dimension first")
    return inputs


def inputs_like(model: nn.Module, example_inputs: Inputs) -> tuple[torch.Tensor, ...]:
    """Example inputs on the model's device and, where they are floating-point, in its type."""
    inputs = as_inputs(example_inputs)
    anchor = next(model.parameters(), None)
    if anchor is None:
        return inputs
    return tuple(item.to(anchor.device, anchor.dtype if item.is_floating_point() else None) for item in inputs)


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, those with several names by each of them."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def first_line(error: Exception) -> str:
    """An error's message as far as its first line, its type where it has none."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def operation(node: fx.Node) -> str:
    """The ATen operation's plain name: `relu_` and `relu.default` are both `relu`."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:  # operator.getitem and other Python functions
        return getattr(node.target, "__name__", str(node.target))
    return schema.name.split("::")[-1].rstrip("_")


def argument(node: fx.Node, position: int, name: str, default: object = None) -> object:
    """A node's argument, given by position or by keyword."""
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


def trace_model(model: nn.Module, example_inputs: Inputs) -> Trace:
    """Export `model` in eval mode as it is without compactors; the model itself is left as it was.

    Where eval mode leaves parameters unread (the auxiliary heads of GoogLeNet), the forward of training is exported,
    with its layers (BN, dropout) in eval mode. Raises ValueError when the model can't be exported.
    """
    inputs = inputs_like(model, example_inputs)
    with ExitStack() as stack:
        stack.enter_context(compactors_bypassed(model))
        stack.enter_context(eval_mode(model))
        stack.enter_context(torch.no_grad())
        exported = _export(model, inputs)
        evaluated = _read_parameters(exported)
        with FlopCounterMode(display=False) as counter:
            model(*inputs)
        unread = {name for name, _ in model.named_parameters() if f".{CHILD}." not in f".{name}"} - evaluated
        if unread:
            for module in model.modules():
                module.training = any(name != CHILD for name, _ in module.named_children())
            try:
                exported = _export(model, inputs)
            except ValueError as error:  # that forward may want larger images, or targets
                logger.warning(
                    "what only training runs (%s, ...) stays as wide as it is and won't fit a narrower network: %s",
                    min(unread),
                    error,
                )
    signature = exported.graph_signature
    return Trace(
        nodes=tuple(exported.graph.nodes),
        parameters={**signature.inputs_to_parameters, **signature.inputs_to_buffers},
        user_inputs=frozenset(signature.user_inputs),
        batch=inputs[0].shape[0],
        evaluated=evaluated,
        macs=counter.get_total_flops() // (2 * inputs[0].shape[0]),
    )


def _export(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.export.ExportedProgram:
    try:  # strict, torch 2.6's default, can't trace every forward that non-strict, the default since, can
        return torch.export.export(model, inputs, strict=False)
    except Exception as error:  # torch.export raises many kinds; each means the same to the user
        raise ValueError(
            f"the model can't be traced by torch.export ({first_line(error)}): check that the example inputs fit it, "
            "and take data-dependent Python branches out of its forward"
        ) from error


def _read_parameters(exported: torch.export.ExportedProgram) -> frozenset[str]:
    names = exported.graph_signature.inputs_to_parameters
    return frozenset(names[node.name] for node in exported.graph.nodes if node.name in names and node.users)


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
