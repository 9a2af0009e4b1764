"""Rules for what takes channels by their places (`x[:, self.places]`): a permutation, or some of them, or some twice.

Where a buffer holds the places, the channels are those that it says now, and a conversion writes their new places into
it. A rule returns the ids of the node's output, or None where it doesn't understand the node.
"""

from __future__ import annotations

from torch import fx

from rr.graph.channel_ids import channel_vector, compact, spread, uniform
from rr.graph.layers import LayerCall, LayerKind
from rr.graph.neighbours import near_channels
from rr.graph.operations import chosen_along, has_same_values, only_choose
from rr.graph.trace import shape_of
from rr.graph.walk import Ids, Walk


def choice(walk: Walk, node: fx.Node) -> Ids | None:
    """The channels at the places that a buffer holds; the same ones, where the dimension has none."""
    dim, index = chosen_along(node)
    if (near := near_channels(walk, node)) is not None:
        return near
    if index is None or node.args[0] not in walk.ids or len(shape_of(index)) != 1:
        return None
    ids, shape = walk.ids[node.args[0]], shape_of(node)
    if uniform(compact(ids), [dim]):
        return compact(ids).narrow(dim, 0, 1).expand(shape)
    channels, name = channel_vector(ids, dim), _buffer(walk, index)
    if channels is None or name is None or not only_choose(walk.readers[name]):
        return None
    places = walk.tensor(name).cpu().numpy() % len(channels)
    walk.record(LayerCall(name, LayerKind.CHOICE, node.name, channels[places], channels, places=places))
    return spread(channels[places], dim, shape)


def _buffer(walk: Walk, index: fx.Node) -> str | None:
    """The buffer that holds the places."""
    while has_same_values(index):
        index = index.args[0]
    return walk.trace.parameter(index)
