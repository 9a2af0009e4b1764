"""What some layers of a network read in one run, at some places of each image, and what they are added to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rr.graph import LayerKind
from rr.refit.rows import Reader, at_places, patches_at, places_of

_ADDITIONS = (torch.ops.aten.add, torch.ops.aten.add_)
_HEAVY = (torch.ops.aten.convolution, torch.ops.aten.addmm, torch.ops.aten.mm, torch.ops.aten.bmm)


class Enough(BaseException):  # not an Exception, which a forward might catch
    """All that was to be seen of this run has been."""


@dataclass
class Seen:
    """What was seen of a layer in one run.

    Attributes:
        calls: for each of its calls, its rows [images x places, rows] and their places in the output (None: none of
            its own, in a transposed convolution).
        added: what its output was added to where it was first used, at the same places [images x places, D]; None
            where it was used otherwise, or the layer ran several times.
        ended: whether its output was used, or the run is over.
    """

    calls: list[tuple[Tensor, list[Tensor] | None]]
    added: Tensor | None = None
    ended: bool = False

    @property
    def rows(self) -> Tensor:
        """Those of all calls."""
        return torch.cat([rows for rows, _ in self.calls])


@dataclass
class _Output:
    """The output of a layer, or of the BN behind it, that nothing has used yet, and how it came about."""

    reader: Reader
    tensor: Tensor  # held, or another one might get its id
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Watch(TorchDispatchMode):
    """Context: one run of a network is watched.

    Args:
        model: the network; its hooks are there only within the context.
        readers: the layers that are looked at.
        most_places: of an image, at most so many.
        batch: its number, which chooses the places.
        is_enough: whether the run ends (by `Enough`) once all was seen that there is to see.
        at_begin: called with a layer that is about to run.
        at_use: called with a layer whose output is about to be used for the first time, and what was seen of it; where
            it returns True, the output is worked out again, with the weights that the layer has then.

    Attributes:
        seen: by layer, what was seen.
    """

    def __init__(
        self,
        model: nn.Module,
        readers: Sequence[Reader],
        most_places: int,
        batch: int,
        *,
        is_enough: bool = False,
        at_begin: Callable[[Reader], None] | None = None,
        at_use: Callable[[Reader, Seen], bool] | None = None,
    ) -> None:
        super().__init__()
        self._model, self._readers, self._most_places, self._batch = model, readers, most_places, batch
        self._is_enough, self._at_begin, self._at_use = is_enough, at_begin, at_use
        self.seen: dict[str, Seen] = {}
        self._running: list[tuple[Reader, tuple[Any, ...], dict[str, Any]]] = []
        self._last_call: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self._outputs: dict[int, _Output] = {}  # by id
        self._is_muted = False
        self._hooks = ExitStack()

    def __enter__(self) -> Watch:
        for reader in self._readers:
            module = self._model.get_submodule(reader.layer.name)
            last = module if reader.layer.norm is None else self._model.get_submodule(reader.layer.norm)
            for hook in (
                module.register_forward_pre_hook(self._begin(reader), with_kwargs=True),
                module.register_forward_hook(self._end(reader)),
                last.register_forward_hook(self._note_output(reader)),
            ):
                self._hooks.callback(hook.remove)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.close()
        if error[0] is None:
            for output in list(self._outputs.values()):
                self._use(output, None)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = getattr(function, "overloadpacket", None)
        if self._outputs:
            self._see_uses(packet in _ADDITIONS, args, kwargs or {})
        if self._is_enough and packet in _HEAVY and self._all_seen():
            raise Enough
        if self._running and packet is torch.ops.aten.convolution:
            reader = self._running[-1][0]
            if reader.layer.kind is not LayerKind.LINEAR:
                self._see_convolution(reader, *args)
        return function(*args, **(kwargs or {}))

    def _all_seen(self) -> bool:
        """Whether all layers have run as often as they do, and their outputs have been used."""
        for reader in self._readers:
            seen = self.seen.get(reader.layer.name)
            if seen is None or not seen.ended or len(seen.calls) < len(reader.layer.nodes):
                return False
        return True

    # Hooks of the modules ---------------------------------------------------------------------------------------

    def _begin(self, reader: Reader) -> Callable[..., None]:
        name = reader.layer.name

        def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._is_muted:
                return
            if self._at_begin is not None:
                self._at_begin(reader)
            self._running.append((reader, args, kwargs))
            if reader.layer.kind is LayerKind.LINEAR:
                x = (args[0] if args else next(iter(kwargs.values()))).detach()  # [N, ..., C]
                x = x.movedim(-1, 1) if x.dim() > 2 else x
                places = places_of(name, self._batch, tuple(x.shape[2:]), self._most_places)
                self._note_rows(name, at_places(x, places), places)

        return begin

    def _end(self, reader: Reader) -> Callable[..., None]:
        def end(*_: object) -> None:
            if not self._is_muted:
                _, args, kwargs = self._running.pop()
                self._last_call[reader.layer.name] = args, kwargs

        return end

    def _note_output(self, reader: Reader) -> Callable[..., None]:
        def note(_: nn.Module, inputs: object, output: object) -> None:
            call = None if self._is_muted else self._last_call.pop(reader.layer.name, None)
            if call is not None and isinstance(output, Tensor):
                self._outputs[id(output)] = _Output(reader, output, *call)

        return note

    # What runs --------------------------------------------------------------------------------------------------

    def _note_rows(self, name: str, rows: Tensor, places: list[Tensor] | None) -> None:
        self.seen.setdefault(name, Seen([])).calls.append((rows.float(), places))

    def _see_convolution(self, reader: Reader, x: Tensor, weight: Tensor, *rest: Any) -> None:
        _, stride, padding, dilation, transposed, _, _ = rest
        name, kernel = reader.layer.name, tuple(weight.shape[2:])
        if transposed:
            places = places_of(name, self._batch, tuple(x.shape[2:]), self._most_places)
            self._note_rows(name, at_places(x, places), None)
            return
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        options = {option: tuple(value) * (len(kernel) // len(value)) for option, value in options.items()}
        sizes = [
            (size + 2 * pad - (taps - 1) * apart - 1) // step + 1
            for size, taps, step, pad, apart in zip(
                x.shape[2:], kernel, options["stride"], options["padding"], options["dilation"], strict=True
            )
        ]
        places = places_of(name, self._batch, tuple(sizes), self._most_places)
        self._note_rows(name, patches_at(x, kernel, options, places), places)

    def _see_uses(self, is_addition: bool, args: Any, kwargs: dict[str, Any]) -> None:
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for leaf in leaves:
            output = self._outputs.get(id(leaf))
            if output is None or output.tensor is not leaf:
                continue
            other = None
            if is_addition and kwargs.get("alpha", 1) == 1:
                other = next((each for each in args[:2] if each is not leaf), None)
            self._use(output, other if isinstance(other, Tensor) and other.shape == leaf.shape else None)

    def _use(self, output: _Output, other: Tensor | None) -> None:
        """An output is about to be used for the first time, added to another tensor or otherwise."""
        del self._outputs[id(output.tensor)]
        reader = output.reader
        seen = self.seen.get(reader.layer.name)
        if seen is None:
            return  # its forward doesn't run what it was traced with
        places = seen.calls[-1][1]
        if other is not None and places is not None and len(reader.layer.nodes) == 1:
            other = other.movedim(-1, 1) if reader.layer.kind is LayerKind.LINEAR else other
            seen.added = at_places(other.detach(), places).float()
        seen.ended = True
        if self._at_use is not None and self._at_use(reader, seen):
            self._work_out_again(output)

    def _work_out_again(self, output: _Output) -> None:
        layer = output.reader.layer
        self._is_muted = True
        again = self._model.get_submodule(layer.name)(*output.args, **output.kwargs)
        if layer.norm is not None:
            again = self._model.get_submodule(layer.norm)(again)
        self._is_muted = False
        output.tensor.copy_(again)
