"""Rules for what cuts channels into parts: tied where they are alike, and apart where a module says their sizes.

A forward takes the sizes from its input (`x.chunk(2, 1)`), or from numbers that its module keeps: a list of them
(`x.split(self.sizes, 1)`), or one (`x[:, : self.width]`, `x.split(self.width, 1)`). Such numbers are noted, and a
conversion changes them; the rehearsal finds out whether the forward does take them from there.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, fx

from rr.graph.channel_ids import channel_vector, compact, uniform
from rr.graph.layers import Sizes
from rr.graph.operations import operation
from rr.graph.rules_shape import listed
from rr.graph.trace import argument, running_module, shape_of
from rr.graph.walk import Ids, Walk
from rr.weights.written_sizes import are_sizes


def cut(walk: Walk, node: fx.Node) -> Ids | None:
    """Parts of the ids."""
    if walk.reads_parameter(node):
        return None
    whole = _with_tied_parts(walk, node)
    if whole is None:
        return None
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: walk.ids[source])
    return listed(node.target(whole, *args[1:], **kwargs))


def _with_tied_parts(walk: Walk, node: fx.Node) -> Tensor | None:
    """The ids to cut. Parts of equal size keep their sizes equal when channels at the same place go together.

    Others can change where numbers on the module say how large they are; None where nothing does.
    """
    ids, name = walk.ids[node.args[0]], operation(node)
    dim = argument(node, 1 if name in ("slice", "select", "unbind", "narrow") else 2, "dim", 0) % ids.dim()
    size = ids.shape[dim]
    if getattr(node.meta["val"], "shape", None) == ids.shape or uniform(compact(ids), [dim]):
        return ids  # every part has all channels
    ends = _ends(node, name, dim, size)
    if ends is None:
        return None
    if name == "split_with_sizes" and _cut_by_a_list(walk, node, channel_vector(ids, dim)):
        walk.flow.count(ids)
        return ids
    parts = np.diff(ends)
    alike = len(set(parts)) == 1
    if alike:
        tied = walk.flow.tie(compact(ids).unflatten(dim, (len(parts), int(parts[0]))), [dim])
        ids = tied.flatten(dim, dim + 1).expand(ids.shape)
    channels = channel_vector(ids, dim)
    found = _numbers_of_module(walk, node, channels, ends) if channels is not None else {}
    if not alike and set(found) != set(range(1, len(ends) - 1)):
        return None
    for sizes in (sizes for of_end in found.values() for sizes in of_end):
        walk.record_sizes(sizes)
    walk.flow.count(ids)
    return ids


def _ends(node: fx.Node, name: str, dim: int, size: int) -> list[int] | None:
    """Where parts end, from 0 on: [0, 16, 24] are one of 16 and one of 8; None where no number says it."""
    if name in ("select", "unbind"):
        return [*range(size + 1)]
    if name in ("slice", "narrow"):
        start, part = (argument(node, 2, "start", 0) or 0) % size, shape_of(node)[dim]
        if argument(node, 4, "step", 1) != 1 or part == 0:
            return None
        if start % part == size % part == 0:
            return [*range(0, size + 1, part)]
        return sorted({0, start, start + part, size})
    sizes = [value.shape[dim] for value in node.meta["val"]]
    return None if name != "split_with_sizes" and len(set(sizes)) > 1 else [0, *np.cumsum(sizes).tolist()]


def _cut_by_a_list(walk: Walk, node: fx.Node, channels: np.ndarray | None) -> bool:
    """Whether the module that cuts has just these sizes in one of its attributes: each part has a number of its own."""
    sizes = [*node.args[1]]
    names = [name for name, value in _kept(walk, node).items() if are_sizes(value) and [*value] == sizes]
    if channels is None or len(names) != 1:
        return False
    walk.record_sizes(Sizes(running_module(node), names[0], tuple(np.split(channels, np.cumsum(sizes)[:-1]))))
    return True


def _kept(walk: Walk, node: fx.Node) -> dict[str, object]:
    """What the module that runs the operation keeps, by name."""
    place = running_module(node)
    return vars(walk.modules[place]) if place in walk.modules else {}


def _numbers_of_module(walk: Walk, node: fx.Node, channels: np.ndarray, ends: list[int]) -> dict[int, list[Sizes]]:
    """The numbers on the module that cuts which may say where the inner ends are: index of the end -> the numbers.

    Args:
        walk: where the node is.
        node: the operation.
        channels: [C] of ids that are cut.
        ends: where the parts end, from 0 to C.
    """
    name, kept = operation(node), _kept(walk, node)
    if name not in ("slice", "narrow", "split", "split_with_sizes"):
        return {}  # by how many parts, not by how large ones
    parts, inner = np.split(channels, ends[1:-1]), range(1, len(ends) - 1)

    def numbers(of: np.ndarray) -> list[Sizes]:
        names = [name for name, number in kept.items() if type(number) is int and number == len(of)]
        return [Sizes(running_module(node), name, (of,)) for name in names]

    if name == "split_with_sizes":
        each = [numbers(part) for part in parts]
        found = {end: each[end - 1] + each[end] for end in inner if each[end - 1] and each[end]}
    elif name == "split":
        each = numbers(parts[0])
        found = {end: each for end in inner if each}
    else:
        size, stop = len(channels), argument(node, 3, "end", None) if name == "slice" else None
        from_behind = {at % size for at in (argument(node, 2, "start", 0), stop) if at is not None and at < 0}
        cuts = {end: channels[ends[end] :] if ends[end] in from_behind else channels[: ends[end]] for end in inner}
        each = {end: numbers(of) for end, of in cuts.items()}
        found = {end: sizes for end, sizes in each.items() if sizes}
    if not found and len({len(part) for part in parts}) == 1:  # `x.split(self.channels // 2, 1)`
        found = {end: numbers(channels) for end in inner}
    return found
