"""Which channels live and die together, where compactors go, and what widths cost: built once, then only read."""

from rr.graph.channel_graph import ChannelGraph
from rr.graph.costs import CostOfWidths, Target
from rr.graph.explanation import explain
from rr.graph.layers import Group, Layer, LayerKind, Site
from rr.graph.live import LiveModel, Remaining
from rr.graph.standing import Standing
from rr.graph.tables import LayerTables
from rr.graph.tensors import ExampleInputs, Inputs

__all__ = [
    "ChannelGraph",
    "CostOfWidths",
    "ExampleInputs",
    "Group",
    "Inputs",
    "Layer",
    "LayerKind",
    "LayerTables",
    "LiveModel",
    "Remaining",
    "Site",
    "Standing",
    "Target",
    "explain",
]
