"""Where the time of two networks went, layer by layer, in eager mode; and which width makes a layer slow."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from rr.latency.rounds import LEAST_ROUNDS, WARM_UP, in_turn

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LIKED = 8  # widths in multiples of this fill the vector registers
LESS = 0.95  # of the time: what a rounded width must get under for the width to be called slow


@dataclass(frozen=True)
class Run:
    """A layer in one network.

    Attributes:
        module: it.
        images: shape of what it reads.
        macs: of one image.
        seconds: of one batch, the median.
    """

    module: nn.Module
    images: torch.Size
    macs: float
    seconds: float

    @property
    def widths(self) -> tuple[int, int]:
        """Channels that it reads and makes."""
        if isinstance(self.module, nn.Linear):
            return self.module.in_features, self.module.out_features
        return self.module.in_channels, self.module.out_channels


@dataclass(frozen=True)
class LayerTimes:
    """A layer in both networks.

    Attributes:
        name: of its module.
        base: in the base network.
        pruned: in the pruned one; None where it is gone.
        slow: which width of the pruned one takes longer than the next multiple of `LIKED` would; empty for none.
    """

    name: str
    base: Run
    pruned: Run | None
    slow: str = ""

    @property
    def share(self) -> float | None:
        """Times faster over times fewer MACs; None where no MACs have gone, or all."""
        if self.pruned is None or self.pruned.macs >= self.base.macs:
            return None
        return (self.base.seconds / self.pruned.seconds) / (self.base.macs / self.pruned.macs)


def layer_times(base: nn.Module, pruned: nn.Module, images: Tensor, seconds: float) -> list[LayerTimes]:
    """The convolutions and linear layers of both networks, in the base's order of running.

    Args:
        base, pruned: in eval mode, of the same names.
        images: float32, [batch, C, H, W].
        seconds: for the runs of the networks, and for each layer whose widths are tried.
    """
    before, after = timed_layers((base, pruned), images, seconds)
    found = []
    for name, run in before.items():
        narrow = after.get(name)
        found.append(LayerTimes(name, run, narrow, slow_width(run, narrow, seconds) if narrow else ""))
    return found


def timed_layers(models: tuple[nn.Module, nn.Module], images: Tensor, seconds: float) -> tuple[dict[str, Run], ...]:
    """Each network's convolutions and linear layers by name, timed in runs in turn.

    Args:
        models: in eval mode.
        images: float32, [batch, C, H, W].
        seconds: for all runs.
    """
    watches = [_Watch(model) for model in models]
    began = time.perf_counter()
    rounds = 0
    with torch.inference_mode():
        while rounds < WARM_UP + LEAST_ROUNDS or time.perf_counter() - began < seconds:
            for model, watch in zip(models, watches, strict=True):
                model(images)
                watch.next_round()
            rounds += 1
    for watch in watches:
        watch.end()
    return tuple(watch.runs(len(images)) for watch in watches)


class _Watch:
    """Notes how long each layer of a network takes in each of its runs."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear))
        }
        self._began: dict[str, float] = {}
        self._now: dict[str, float] = defaultdict(float)  # a layer may run more than once
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._macs: dict[str, int] = defaultdict(int)  # of all runs so far
        self._images: dict[str, torch.Size] = {}
        self._hooks = []
        for name, module in self._layers.items():
            self._hooks.append(module.register_forward_pre_hook(partial(self._begin, name)))
            self._hooks.append(module.register_forward_hook(partial(self._finish, name)))

    def _begin(self, name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._began[name] = time.perf_counter()

    def _finish(self, name: str, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self._now[name] += time.perf_counter() - self._began[name]
        self._images[name] = args[0].shape
        # Each number of the output (of the input, where it is spread) is multiplied with one row of the weight.
        spreads = isinstance(module, _TRANSPOSED)
        self._macs[name] += (args[0] if spreads else output).numel() * module.weight[0].numel()

    def next_round(self) -> None:
        """What was noted since the last one is one run of the network."""
        for name, seconds in self._now.items():
            self._seconds[name].append(seconds)
        self._now.clear()

    def end(self) -> None:
        """Leave the network as it was."""
        for hook in self._hooks:
            hook.remove()

    def runs(self, images: int) -> dict[str, Run]:
        """By the layer's name."""
        return {
            name: Run(
                self._layers[name],
                self._images[name],
                self._macs[name] / len(seconds) / images,
                statistics.median(seconds[WARM_UP:]),
            )
            for name, seconds in self._seconds.items()
        }


def slow_width(base: Run, pruned: Run, seconds: float) -> str:
    """Which width of a narrowed layer takes longer than the next multiple of `LIKED`, alone, would; empty for none.

    Args:
        base, pruned: the layer before and after.
        seconds: to time the layer and its rounded forms in turn.
    """
    module = pruned.module
    if pruned.widths == base.widths or isinstance(module, _TRANSPOSED) or getattr(module, "groups", 1) > 1:
        return ""
    reads, makes = pruned.widths
    up = (_rounded(reads), _rounded(makes))
    tried = {"reads": (up[0], makes), "makes": (reads, up[1]), "reads and makes": up}
    tried = {what: widths for what, widths in tried.items() if widths != pruned.widths}
    if len(set(tried.values())) == 1:  # the other one is a multiple as it is
        tried.pop("reads and makes")
    if not tried:
        return ""
    times = in_turn([_alone(pruned, widths) for widths in (pruned.widths, *tried.values())], seconds)
    own, *rounded = [statistics.median(of_one) for of_one in times]
    what, of_best = min(zip(tried, rounded, strict=True), key=lambda pair: pair[1])
    if of_best > LESS * own:
        return ""
    return f"{what}: {_shown(pruned.widths)} as {_shown(tried[what])} takes {of_best / own:.0%} of the time"


def _rounded(width: int) -> int:
    return -(-width // LIKED) * LIKED


def _shown(widths: tuple[int, int]) -> str:
    return "->".join(map(str, widths))


def _alone(run: Run, widths: tuple[int, int]) -> Callable[[], object]:
    """A layer like a network's, of other widths, as a call."""
    module, (reads, makes) = run.module, widths
    shape = list(run.images)
    if isinstance(module, nn.Linear):
        layer: nn.Module = nn.Linear(reads, makes, bias=module.bias is not None)
        shape[-1] = reads
    else:
        kind = next(kind for kind in _CONVOLUTIONS if isinstance(module, kind))
        layer = kind(
            reads,
            makes,
            module.kernel_size,
            stride=module.stride,
            padding=module.padding,
            dilation=module.dilation,
            bias=module.bias is not None,
        )
        shape[-len(module.kernel_size) - 1] = reads
    images = torch.randn(shape)
    return torch.inference_mode()(lambda: layer(images))
