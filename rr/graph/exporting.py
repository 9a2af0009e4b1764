"""What has to be otherwise while a model is exported, or its MACs are counted."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from typing import Any

import torch
import torch.fx.config
from torch import Tensor, fx, nn
from torch.amp.autocast_mode import autocast
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode


@contextmanager
def without_fused_attention() -> Iterator[None]:
    """Let attention run operation by operation: torch's FLOP counter counts nothing in the fused ones of eval mode."""
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)


@contextmanager
def without_fused_recurrence(model: nn.Module) -> Iterator[None]:
    """Let recurrent layers run as products of matrices: torch's FLOP counter counts nothing in the fused ones."""
    with ExitStack() as stack:
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


@contextmanager
def without_autocast() -> Iterator[None]:
    """Let autocast do nothing.

    An export hides what runs in it in a graph of its own, and its rounding would hide differences from a proof.
    """
    before = autocast.__enter__, autocast.__exit__
    with torch.autocast("cpu", enabled=False):
        autocast.__enter__, autocast.__exit__ = (lambda self: self), (lambda self, *_: False)
        try:
            yield
        finally:
            autocast.__enter__, autocast.__exit__ = before


@contextmanager
def without_dumps() -> Iterator[None]:
    """Keep quiet what torch prints of a graph or a file that it can't export or read; its error goes on."""
    logs = [logging.getLogger(name) for name in ("torch.fx.experimental.symbolic_shapes", "torch.export")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


@contextmanager
def without_stack_traces() -> Iterator[None]:
    """Let operations not say which line they come from: nobody asks, and it takes a fifth of a trace's time."""
    name = "do_not_emit_stack_traces"
    before = getattr(torch.fx.config, name, None)  # torch 2.6 doesn't have it yet
    if before is not None:
        setattr(torch.fx.config, name, True)
    try:
        yield
    finally:
        if before is not None:
            setattr(torch.fx.config, name, before)


@contextmanager
def switches_as_numbers(model: nn.Module) -> Iterator[list[str]]:
    """Buffers of a single number as the numbers that they are, so that a forward can branch on them (`if self.flag`).

    Which way the forward goes is then what their values say now.

    Args:
        model: the model; its buffers are back afterwards.

    Yields:
        Their names.
    """
    switches = [
        (module, name, buffer)
        for module in model.modules()
        if not isinstance(module, _NormBase)
        for name, buffer in module._buffers.items()
        if buffer is not None and buffer.dim() == 0
    ]
    for module, name, buffer in switches:
        del module._buffers[name]
        vars(module)[name] = buffer.item()
    try:
        yield [name for _, name, _ in switches]
    finally:
        for module, name, buffer in switches:
            del vars(module)[name]
            module._buffers[name] = buffer


@contextmanager
def in_one_grad_mode() -> Iterator[None]:
    """Let this thread's `no_grad`, `enable_grad` and `set_grad_enabled` do nothing.

    An export hides what runs in another mode than the first in a graph of its own.
    """
    before, thread = torch._C._set_grad_enabled, threading.get_ident()
    torch._C._set_grad_enabled = lambda mode: None if threading.get_ident() == thread else before(mode)
    try:
        yield
    finally:
        torch._C._set_grad_enabled = before


class DataAsDetached(TorchFunctionMode):
    """Context: `x.data` is `x.detach()`, which has the same values, and of which torch.export doesn't lose sight."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function == Tensor.data.__get__:
            return args[0].detach()
        return function(*args, **(kwargs or {}))


def drop_releases(graph: fx.Graph) -> None:
    """Take out of a graph what only frees memory (`x.data.set_()`, as reversible blocks do): it makes no value."""
    for node in reversed(graph.nodes):
        if node.op == "call_function" and not node.users and _releases(node):
            source = node.args[0]
            graph.erase_node(node)
            if not source.users and source.target is torch.ops.aten.detach.default:
                graph.erase_node(source)


def _releases(node: fx.Node) -> bool:
    return getattr(node.target, "overloadpacket", None) is torch.ops.aten.set_ and len(node.args) == 1
