"""A network run on images, and what its layers read there, at some places of each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rr.graph import LayerKind
from rr.refit.feed import Feed
from rr.refit.rows import Reader, at_places, patches_at, places_of

# Called with the reader, the number of the batch, its rows [images x places, rows], and what its output is about to be
# added to, at the same places ([images x places, D]; None where it isn't).
Sink = Callable[[Reader, int, Tensor, "Tensor | None"], None]


_HEAVY = (torch.ops.aten.convolution, torch.ops.aten.addmm, torch.ops.aten.mm, torch.ops.aten.bmm)


class _Enough(Exception):
    """All that was to be seen of this batch has been."""


class Capture(TorchDispatchMode):
    """Runs a network, and hands on what some of its layers read.

    Args:
        model: the network.
        readers: the layers.
        most_places: of an image, at most so many.
    """

    def __init__(self, model: nn.Module, readers: Sequence[Reader], most_places: int) -> None:
        super().__init__()
        self._model, self._readers, self._most_places = model, {each.layer.name: each for each in readers}, most_places
        self._running: list[Reader] = []
        # Layer -> for each of its calls, its rows and their places.
        self._found: dict[str, list[tuple[Tensor, list[Tensor] | None]]] = {}
        self._ends: dict[int, tuple[str, Tensor]] = {}  # id of an output -> its layer, and the output itself
        self._added: dict[str, Tensor] = {}
        self._batch = 0

    @torch.no_grad()
    def run(self, feed: Feed, sink: Sink) -> None:
        """Run on all images, each batch no further than it takes.

        Args:
            feed: the images.
            sink: gets what was seen, layer by layer.
        """
        with ExitStack() as stack:
            for name, reader in self._readers.items():
                module = self._model.get_submodule(name)
                stack.callback(module.register_forward_pre_hook(self._begin(reader), with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(self._end(reader)).remove)
                last = module if reader.layer.norm is None else self._model.get_submodule(reader.layer.norm)
                stack.callback(last.register_forward_hook(self._note_output(name)).remove)
            for self._batch, batch in enumerate(feed):
                self._found, self._ends, self._added, self._running = {}, {}, {}, []
                with self, suppress(_Enough):
                    feed.run(self._model, batch)
                for name, calls in self._found.items():
                    rows = torch.cat([rows for rows, _ in calls])
                    sink(self._readers[name], self._batch, rows, self._added.get(name) if len(calls) == 1 else None)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = getattr(function, "overloadpacket", None)
        if packet in _HEAVY and self._is_over():
            raise _Enough
        runs = bool(self._running) and self._running[-1].layer.kind is not LayerKind.LINEAR
        if runs and packet is torch.ops.aten.convolution:
            self._see_convolution(self._running[-1], *args)
        elif packet in (torch.ops.aten.add, torch.ops.aten.add_) and self._ends:
            self._see_addition(*args[:2])
        return function(*args, **(kwargs or {}))

    def _is_over(self) -> bool:
        """Whether all layers have run as often as they do, and what they are added to has been seen."""
        times = {name: len(self._found.get(name, ())) for name in self._readers}
        ended = {name for name, _ in self._ends.values()}
        return all(times[name] == len(each.layer.nodes) and name in ended for name, each in self._readers.items())

    def _begin(self, reader: Reader) -> Callable[..., None]:
        def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._running.append(reader)
            if reader.layer.kind is LayerKind.LINEAR:
                x = args[0] if args else next(iter(kwargs.values()))  # [N, ..., C]
                x = x.movedim(-1, 1) if x.dim() > 2 else x
                places = places_of(reader.layer.name, self._batch, tuple(x.shape[2:]), self._most_places)
                self._found.setdefault(reader.layer.name, []).append((at_places(x, places).float(), places))

        return begin

    def _end(self, reader: Reader) -> Callable[..., None]:
        def end(*_: object) -> None:
            self._running.remove(reader)

        return end

    def _note_output(self, name: str) -> Callable[..., None]:
        def note(_: nn.Module, inputs: object, output: Tensor) -> None:
            if isinstance(output, Tensor):
                self._ends[id(output)] = name, output  # held, or another tensor might get its id

        return note

    def _see_convolution(self, reader: Reader, x: Tensor, weight: Tensor, *rest: Any) -> None:
        _, stride, padding, dilation, transposed, _, _ = rest
        name, kernel = reader.layer.name, tuple(weight.shape[2:])
        if transposed:
            places = places_of(name, self._batch, tuple(x.shape[2:]), self._most_places)
            self._found.setdefault(name, []).append((at_places(x, places).float(), None))
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
        self._found.setdefault(name, []).append((patches_at(x, kernel, options, places).float(), places))

    def _see_addition(self, first: object, second: object) -> None:
        for own, other in ((first, second), (second, first)):
            name, output = self._ends.get(id(own), ("", None))
            if output is None or output is not own or not isinstance(other, Tensor) or other.shape != own.shape:
                continue
            places = self._found[name][-1][1]
            if places is not None and name not in self._added:
                other = other.movedim(-1, 1) if self._readers[name].layer.kind is LayerKind.LINEAR else other
                self._added[name] = at_places(other, places).float()
            return
