"""Local response norms: each channel is divided by those that lie near it, of which dead ones are zeros."""

from __future__ import annotations

import numpy as np
from torch import fx, nn

from rr.graph.channel_ids import channel_vector
from rr.graph.layers import LayerCall, LayerKind, Sum
from rr.graph.operations import operation
from rr.graph.trace import running_module
from rr.graph.walk import Ids, Walk
from rr.weights.neighbour_norm import NeighbourNorm


def near_channels(walk: Walk, node: fx.Node) -> Ids | None:
    """What a local response norm makes of the channels near each; None where no module of that kind does."""
    name = running_module(node)
    module = walk.modules.get(name)
    is_own = isinstance(module, nn.LocalResponseNorm) and type(module).forward is nn.LocalResponseNorm.forward
    if is_own and operation(node).startswith("avg_pool"):
        before, behind, dim = module.size // 2, (module.size - 1) // 2, 2 if operation(node) == "avg_pool3d" else -2
    elif isinstance(module, NeighbourNorm) and operation(node) == "index_select":
        before, behind, dim = 0, 1, 1
    else:
        return None
    padded = channel_vector(walk.ids[node.args[0]], dim)
    if padded is None:
        return None
    channels = padded[before : len(padded) - behind]
    walk.record(LayerCall(name, LayerKind.NEIGHBOURS, node.name, np.array(channels), None))
    # Each is read by those near it, whatever reads it otherwise.
    walk.flow.sums.append(Sum(node.name, node.args[0].name, walk.ids[node.args[0]]))
    return walk.of_all_channels(node)
