"""The network as a list of ATen operations: `torch.export` once, with the module behind every parameter."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import fx, nn
from torch.utils._pytree import SUPPORTED_NODES, tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from rr.compactors import CHILD, compactors_bypassed
from rr.copies import OwnTensors, copy_of
from rr.errors import InputError, first_line
from rr.graph.exporting import (
    DataAsDetached,
    drop_releases,
    in_one_grad_mode,
    switches_as_numbers,
    without_autocast,
    without_dumps,
    without_fused_attention,
    without_fused_recurrence,
    without_stack_traces,
)
from rr.graph.sizes import with_sizes
from rr.graph.tensors import ExampleInputs, Inputs, eval_mode, named_tensors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trace:
    """An exported forward pass in eval mode, without compactors; with the heads that only training runs, if any.

    Attributes:
        nodes: the operations in order of execution (placeholders and the output included).
        parameters: placeholder name -> the parameter's or buffer's name in the model.
        user_inputs: names of the placeholders that are the network's inputs.
        batch: the examples' batch size.
        evaluated: the parameters that the forward in eval mode reads.
        macs: multiply-accumulates per example of the whole network, half of what torch's FLOP counter counts.
        in_eval: where these are the operations of the training forward, those of eval mode.
    """

    nodes: tuple[fx.Node, ...]
    parameters: dict[str, str]
    user_inputs: frozenset[str]
    batch: int
    evaluated: frozenset[str]
    macs: int
    in_eval: Trace | None = None

    def parameter(self, argument: object) -> str | None:
        """The model's name for a node's argument, None when that isn't a parameter or buffer."""
        return self.parameters.get(argument.name) if isinstance(argument, fx.Node) else None


def trace_model(model: nn.Module, example_inputs: Inputs | ExampleInputs) -> Trace:
    """Export `model` in eval mode as it is without compactors; the model itself is left as it was.

    Where eval mode leaves parameters unread (the auxiliary heads of GoogLeNet), the training forward is exported, with
    its layers (BN, dropout) in eval mode.

    Raises:
        InputError: if the model can't be exported.
    """
    inputs = ExampleInputs.of(example_inputs).like(model)
    known = frozenset(named_tensors(model))
    own, model = OwnTensors(model), copy_of(model)  # a forward may count its calls, or keep what it computes
    model.requires_grad_(False)  # or torch's FLOP counter fails where a layer is given a view of a parameter
    with ExitStack() as stack:
        stack.enter_context(without_autocast())
        stack.enter_context(without_fused_attention())
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=".* assigned during export")
        warnings.filterwarnings("ignore", message="TF32")  # of a type that is switched off with the fused layers
        stack.enter_context(compactors_bypassed(model))
        stack.enter_context(eval_mode(model))
        stack.enter_context(torch.no_grad())
        with without_fused_recurrence(model), FlopCounterMode(display=False) as counter, own:
            _run(model, inputs)
        own.check()
        macs = counter.get_total_flops() // (2 * inputs.batch_size)
        exported = _export(model, inputs)
        names = _first_names(model)
        if inputs.batch_size == 1 and any(_squeezes_all(node) for node in exported.graph.nodes):
            inputs, exported = _of_two(model, inputs, exported)
        in_eval, evaluated = None, _read_parameters(exported, names)
        unread = {name for name, _ in model.named_parameters() if f".{CHILD}." not in f".{name}"} - evaluated
        if unread:
            for module in model.modules():
                module.training = any(name != CHILD for name, _ in module.named_children())
            try:
                _run(model, inputs)
                exported, in_eval = _export(model, inputs), exported
            except InputError as error:  # that forward may want larger images, or targets
                logger.warning(
                    "what only training runs (%s, ...) stays as wide as it is and won't fit a narrower network: %s",
                    min(unread),
                    error,
                )
    trace = _trace_of(exported, inputs, names, known, evaluated, macs)
    return (
        trace if in_eval is None else replace(trace, in_eval=_trace_of(in_eval, inputs, names, known, evaluated, macs))
    )


def _trace_of(
    exported: torch.export.ExportedProgram,
    inputs: ExampleInputs,
    names: Mapping[str, str],
    known: frozenset[str],
    evaluated: frozenset[str],
    macs: int,
) -> Trace:
    signature = exported.graph_signature
    for node in exported.graph.nodes:
        if stack := node.meta.get("nn_module_stack"):
            node.meta["nn_module_stack"] = {call: (names.get(path, path), kind) for call, (path, kind) in stack.items()}
    tensors = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    parameters = {placeholder: _by_first_name(name, names) for placeholder, name in tensors.items()}
    return Trace(
        nodes=tuple(exported.graph.nodes),
        # A buffer that the forward itself has registered is a constant to it.
        parameters={placeholder: name for placeholder, name in parameters.items() if name in known},
        user_inputs=frozenset(name for name in signature.user_inputs if isinstance(name, str)),
        batch=inputs.batch_size,
        evaluated=evaluated,
        macs=macs,
    )


def argument(node: fx.Node, position: int, name: str, default: object = None) -> object:
    """A node's argument, given by position or by keyword."""
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


def named_arguments(node: fx.Node) -> dict[str, object]:
    """An operation's arguments that are given, by the names in its schema."""
    names = (argument.name for argument in node.target._schema.arguments)
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def shape_of(node: fx.Node) -> torch.Size:
    """The shape of a node's output, as exported."""
    return node.meta["val"].shape


def has_sizes(node: fx.Node) -> bool:
    """Whether all sizes of a node's output, and of what it reads, are known: they may depend on values (`nonzero`)."""
    return all(
        isinstance(size, int)
        for value in (node, *node.all_input_nodes)
        for part in tree_leaves(value.meta.get("val"))
        for size in getattr(part, "shape", ())
    )


def is_empty(node: fx.Node) -> bool:
    """Whether the first tensor that an operation reads has no elements (`x[1:]` of a batch of one)."""
    first = node.args[0].meta.get("val") if node.args and isinstance(node.args[0], fx.Node) else None
    return isinstance(first, torch.Tensor) and 0 in first.shape


def is_number(node: fx.Node) -> bool:
    """Whether a node's output is a number, not a tensor (`.item()`, a size)."""
    return isinstance(node.meta["val"], (int, float, torch.SymInt, torch.SymFloat, torch.SymBool))


def is_no_tensor(node: fx.Node) -> bool:
    """Whether a placeholder stands for anything but a tensor: its value is in the operations that were traced."""
    return not isinstance(node.meta.get("val"), torch.Tensor)


def running_module(node: fx.Node) -> str:
    """The name of the innermost module whose forward runs the operation, "" for the model itself."""
    return next(reversed((node.meta.get("nn_module_stack") or {"": ("", "")}).values()))[0]


def inside_modules(trace: Trace) -> tuple[dict[str, list[fx.Node]], dict[str, set[str]]]:
    """Module -> the operations within it, its children's included; module -> its calls."""
    inside: dict[str, list[fx.Node]] = {}
    calls: dict[str, set[str]] = {}
    for node in trace.nodes:
        for call, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
            inside.setdefault(path, []).append(node)
            calls.setdefault(path, set()).add(call)
    return inside, calls


def readers_of(trace: Trace, model: nn.Module) -> dict[str, list[fx.Node]]:
    """Parameter's or buffer's name -> the operations that read it, under whichever of its names."""
    tensors = named_tensors(model)
    by_tensor: dict[int, list[fx.Node]] = {}
    for node in trace.nodes:
        if node.name in trace.parameters and node.op == "placeholder":
            by_tensor.setdefault(id(tensors[trace.parameters[node.name]]), []).extend(node.users)
    return {name: by_tensor.get(id(tensor), []) for name, tensor in tensors.items()}


def _run(model: nn.Module, inputs: ExampleInputs) -> None:
    """Run the forward once: a mistake in it is told apart from what can't be exported, its classes become known."""
    try:
        _register_dataclasses(inputs.call(model))
    except Exception as error:  # whatever the user's forward raises
        raise InputError(
            f"the model fails when it is called with the example inputs ({first_line(error)}): give those that it is "
            "made for"
        ) from error


def _export(model: nn.Module, inputs: ExampleInputs) -> torch.export.ExportedProgram:
    def export() -> torch.export.ExportedProgram:
        # Strict, torch 2.6's default, can't trace every forward that non-strict, the default since, can.
        with without_dumps(), without_stack_traces(), in_one_grad_mode():
            exported = torch.export.export(model, inputs.args, dict(inputs.kwargs), strict=False)
        drop_releases(exported.graph)
        return exported

    try:
        return export()
    except Exception as error:  # torch.export raises many kinds, which all mean the same to the user
        try:
            with switches_as_numbers(model), DataAsDetached():
                return export()
        except Exception:  # a forward that wants tensors there: the first error says more
            logger.debug("neither switches as numbers nor data as detached tensors helped")
        raise InputError(
            f"the model can't be traced by torch.export ({first_line(error)}): take Python branches on the values of "
            "tensors out of its forward (`if x.sum() > 0`), and what else torch.export can't follow"
        ) from error


def _register_dataclasses(output: object) -> None:
    """Tell torch.export of the users' classes that a forward's output is made of, some of which are dicts as well."""
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        if type(output) not in SUPPORTED_NODES:
            torch.export.register_dataclass(type(output))
        output = [getattr(output, field.name) for field in dataclasses.fields(output)]
    elif isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        for part in output:
            _register_dataclasses(part)


def _squeezes_all(node: fx.Node) -> bool:
    """Whether it is `x.squeeze()`, which takes the batch of a single example for a dimension without use."""
    return (
        node.op == "call_function"
        and getattr(node.target, "overloadpacket", None) is torch.ops.aten.squeeze
        and (len(node.args) == 1 and not node.kwargs)
    )


def _of_two(
    model: nn.Module, inputs: ExampleInputs, exported: torch.export.ExportedProgram
) -> tuple[ExampleInputs, torch.export.ExportedProgram]:
    """Inputs with two examples and the network exported with these; as they were where it doesn't take two."""
    two = with_sizes(inputs, {0: 2})
    try:
        return two, _export(model, two)
    except InputError:
        return inputs, exported


def _read_parameters(exported: torch.export.ExportedProgram, names: Mapping[str, str]) -> frozenset[str]:
    parameters = exported.graph_signature.inputs_to_parameters
    read = (parameters[node.name] for node in exported.graph.nodes if node.name in parameters and node.users)
    return frozenset(_by_first_name(name, names) for name in read)


def _first_names(model: nn.Module) -> dict[str, str]:
    """Every name of every module -> its first, which `named_modules` has: one may stand at several places."""
    first = {id(module): name for name, module in model.named_modules()}
    return {name: first[id(module)] for name, module in model.named_modules(remove_duplicate=False)}


def _by_first_name(tensor: str, names: Mapping[str, str]) -> str:
    """A parameter's or buffer's name, by the first name of its module."""
    owner, _, leaf = tensor.rpartition(".")
    first = names.get(owner, owner)
    return f"{first}.{leaf}" if first else leaf
