"""How far a network has come: the units that are alive, and what these cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rr.graph.channel_graph import ChannelGraph


@dataclass(frozen=True)
class Standing:
    """Some of a network's units, and what it costs with these alone.

    Attributes:
        graph: of the network.
        alive: [num_units] of bool.
    """

    graph: ChannelGraph
    alive: np.ndarray

    @property
    def widths(self) -> list[int]:
        """The flat list of widths ("deps")."""
        return self.graph.widths(self.alive)

    @property
    def macs_ratio(self) -> float:
        """MACs over the full network's."""
        return self.graph.macs(self.alive) / self.graph.macs.full

    @property
    def params_ratio(self) -> float:
        """Parameters, as converted, over the full network's."""
        return self.graph.parameters(self.alive) / self.graph.parameters.full

    def __repr__(self) -> str:
        left = f"{self.macs_ratio:.4f} of the MACs, {self.params_ratio:.4f} of the parameters"
        return f"{type(self).__name__}({int(self.alive.sum())} of {len(self.alive)} units, {left})"
