"""Rules for products of matrices, of activations or with a parameter (`torch.bmm`, `torch.einsum`).

A rule returns the ids of the node's output, or None where it doesn't understand the node.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import fx

from rr.graph.channel_ids import compact, spread, varying
from rr.graph.layers import LayerCall, LayerKind, Sum
from rr.graph.operations import operation
from rr.graph.rules_columns import bare_matrix
from rr.graph.trace import running_module, shape_of
from rr.graph.walk import Ids, Walk


@dataclass(frozen=True)
class _Equation:
    """Two factors and what becomes of each of their dimensions, in the letters of `torch.einsum`."""

    factors: tuple[fx.Node, fx.Node]
    letters: tuple[str, str]
    out: str


def product(walk: Walk, node: fx.Node) -> Ids | None:
    """Channels along one letter: of both factors and the product, of one factor alone, or added up."""
    equation = _equation(node)
    if equation is None:
        return None
    if walk.reads_parameter(node):
        return _with_parameter(walk, node, equation)
    ids = [walk.ids[factor] for factor in equation.factors]
    along = [{names[dim] for dim in varying(of)} for of, names in zip(ids, equation.letters, strict=True)]
    if len(along[0] | along[1]) != 1:
        return None
    letter = (along[0] | along[1]).pop()
    vectors = []
    for factor, of, names in zip(equation.factors, ids, equation.letters, strict=True):
        dim = names.find(letter)
        if dim >= 0 and of.shape[dim] > 1:
            vectors.append(compact(of).movedim(dim, 0).flatten(1)[:, 0].expand(of.shape[dim]).numpy())
        else:  # the same for every channel of the other factor
            walk.protect(factor, "one channel that meets all channels of another tensor")
    channels = vectors[0]
    if len(vectors) == 2:
        walk.flow.unite(*vectors)
    elif letter not in equation.out:
        return None
    _record(walk, node, equation, letter, channels)
    if letter in equation.out:
        return spread(channels, equation.out.index(letter), shape_of(node))
    first = equation.factors[0]
    walk.flow.sums.append(Sum(node.name, first.name, walk.ids[first]))
    return walk.of_all_channels(node)


def _record(walk: Walk, node: fx.Node, equation: _Equation, letter: str, channels: np.ndarray) -> None:
    """Note what the product costs for each channel: torch counts it where anything is added up."""
    sizes = {}
    for factor, names in zip(equation.factors, equation.letters, strict=True):
        for name, size in zip(names, shape_of(factor), strict=True):
            sizes[name] = max(size, sizes.get(name, 1))
    adds_up = set(sizes) - set(equation.out)
    macs = math.prod(size for name, size in sizes.items() if name != letter) // walk.trace.batch if adds_up else 0
    name = f"{running_module(node)}.{node.name}()".removeprefix(".")
    walk.record(LayerCall(name, LayerKind.PRODUCT, node.name, channels, None, macs))


def _with_parameter(walk: Walk, node: fx.Node, equation: _Equation) -> Ids | None:
    """A matrix that reads the last dimension of an activation."""
    (x, parameter), (names, of_matrix) = equation.factors, equation.letters
    if x not in walk.ids or walk.trace.parameter(parameter) is None or len(of_matrix) != 2:
        return None
    kept = of_matrix.replace(names[-1], "")
    if len(kept) != 1 or kept in names or equation.out != names[:-1] + kept:
        return None
    return bare_matrix(walk, node, x, parameter, of_matrix.index(names[-1]))


def _equation(node: fx.Node) -> _Equation | None:
    """None for what has more than two factors, or takes a letter twice in one of them."""
    if operation(node) != "einsum":
        first, second = node.args[:2]
        dims = [len(shape_of(factor)) for factor in (first, second)]
        if min(dims) < 2:
            return None
        batch = "abcdefgh"[: max(dims) - 2]
        names = (batch[len(batch) - dims[0] + 2 :] + "xy", batch[len(batch) - dims[1] + 2 :] + "yz")
        return _Equation((first, second), names, batch + "xz")
    text, factors = node.args[0].replace(" ", ""), node.args[1]
    inputs, arrow, out = text.partition("->")
    names = tuple(inputs.split(","))
    if "." in text or not arrow or len(factors) != 2 or any(len(set(own)) != len(own) for own in names):
        return None
    return _Equation(tuple(factors), names, out)
