"""Channel ids: which are united, and tensors that hold the id of each element's channel.

Such a tensor has the activation's real shape and is expanded along every dimension in which the ids are the same by
construction, so it takes next to no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rr.graph.layers import LayerCall, OverChannels, Sizes, Sum


@dataclass
class ChannelFlow:
    """What the ids found: the layers in order of execution, the united ids, and why some may not be pruned.

    Attributes:
        layers: each as often as it is called.
        parent: of each id in the forest of united ids.
        reasons: id -> why its unit can't be pruned.
        streams: ids in which an addition joined different units (residual streams).
        counted: ids of channels that the forward cuts or groups, by sizes that may be hard-coded.
        sums: where channels are added up.
        over_channels: means and extremes over channels that layers can make up for.
        sizes: the numbers on modules that cut channels.
        no_layers: modules that run a convolution or a linear operation of which none of that is known -> why.
    """

    layers: list[LayerCall] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    streams: set[int] = field(default_factory=set)
    counted: set[int] = field(default_factory=set)
    sums: list[Sum] = field(default_factory=list)
    over_channels: list[OverChannels] = field(default_factory=list)
    sizes: list[Sizes] = field(default_factory=list)
    no_layers: dict[str, str] = field(default_factory=dict)

    def fresh(self, count: int) -> np.ndarray:
        """`count` new ids, each a unit of its own."""
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def find(self, channel: int) -> int:
        """The id that stands for the unit of `channel`."""
        root = channel
        while self.parent[root] != root:
            root = self.parent[root]
        while self.parent[channel] != root:  # shorten the path for the next time
            self.parent[channel], channel = root, self.parent[channel]
        return root

    def unite(self, first: np.ndarray, second: np.ndarray, *, in_stream: bool = False) -> None:
        """Let ids at the same position live and die together.

        Args:
            first, second: the ids.
            in_stream: whether that is because they add into a residual stream.
        """
        for a, b in np.unique(np.stack([first, second]), axis=1).T:
            root_a, root_b = self.find(int(a)), self.find(int(b))
            if root_a != root_b:
                self.parent[max(root_a, root_b)] = min(root_a, root_b)
                if in_stream:
                    self.streams.add(root_a)

    def protect(self, ids: np.ndarray, reason: str) -> None:
        """The units of these ids can't be pruned, for `reason` (the first one given stays)."""
        for channel in np.unique(ids):
            self.reasons.setdefault(int(channel), reason)

    def tie(self, ids: Tensor, dims: Sequence[int]) -> Tensor:
        """Unite the ids along `dims`; returns them with the first id in place of all along these."""
        first = compact(ids)
        shape = first.shape
        for dim in dims:
            first = first.narrow(dim, 0, min(1, first.shape[dim]))
        self.unite(compact(ids).flatten().numpy(), first.expand(shape).flatten().numpy())
        return first.expand(ids.shape)

    def canonical(self, ids: Tensor) -> Tensor:
        """Each id as the one that stands for its unit."""
        distinct, positions = np.unique(ids.flatten().numpy(), return_inverse=True)
        roots = np.array([self.find(int(channel)) for channel in distinct])
        return torch.from_numpy(roots[positions]).reshape(ids.shape)

    def count(self, ids: Tensor) -> None:
        """Note that the forward cuts or groups these channels."""
        self.counted.update(np.unique(compact(ids).numpy()).tolist())


def compact(ids: Tensor) -> Tensor:
    """The same ids with every expanded dimension cut to one: what is equal by construction is looked at once."""
    for dim, stride in enumerate(ids.stride()):
        if stride == 0 and ids.shape[dim] > 1:
            ids = ids.narrow(dim, 0, 1)
    return ids


def uniform(ids: Tensor, dims: Sequence[int]) -> bool:
    """Whether the ids are the same all along `dims`."""
    first = ids
    for dim in dims:
        first = first.narrow(dim, 0, min(1, first.shape[dim]))
    return bool((ids == first).all())


def varying(ids: Tensor) -> list[int]:
    """The dimensions along which the ids differ."""
    ids = compact(ids)
    return [dim for dim in range(ids.dim()) if not uniform(ids, [dim])]


def channel_vector(ids: Tensor, channel_dim: int) -> np.ndarray | None:
    """The id of each channel, [C], where every position along the other dimensions has the same; else None.

    None too where there is no batch beside the channels, or nothing in it.
    """
    if ids.dim() < 2 or not ids.numel():
        return None
    channels = ids.shape[channel_dim]
    ids = compact(ids)
    channel_dim %= ids.dim()
    if not uniform(ids, [dim for dim in range(ids.dim()) if dim != channel_dim]):
        return None
    vector = ids.transpose(0, channel_dim).flatten(1)[:, 0]
    return vector.expand(channels).numpy().copy()


def spread(channels: np.ndarray, channel_dim: int, shape: torch.Size) -> Tensor:
    """Channel ids [C] as an expanded tensor of `shape`."""
    view = [1] * len(shape)
    view[channel_dim] = len(channels)
    return torch.from_numpy(np.ascontiguousarray(channels)).view(view).expand(shape)
