"""What of a network can be pruned, and why the rest can't. What `tools/explain.py` prints."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from base_model import build_any, model_info, model_names
from rr import ChannelGraph, explain
from rr.conversion import rehearse


def explained(name: str, image_size: int | None = None, in_channels: int | None = None) -> str:
    """A table by layer, a line per cause, and the share of the MACs that can go, as text.

    Args:
        name: a name that `build_any` takes.
        image_size: side of the images, in pixels; None for the network's own, else 224.
        in_channels: channels of the images; None for the network's own, else 3.

    Raises:
        InputError: for what a user can put right.
    """
    known = model_info(name) if name in model_names() else None
    size = image_size or (known.image_size if known else 224)
    channels = in_channels or (known.in_channels if known else 3)
    model, images = build_any(name, in_channels=channels, image_size=size).eval(), torch.zeros(1, channels, size, size)
    graph = ChannelGraph(model, images)
    graph = rehearse(model, graph, images, graph.prunable)
    full = np.ones(graph.num_units, dtype=bool)
    lines = [explain(graph), "", f"{name} at {channels} x {size} x {size}: {graph.macs(full):,} MACs"]
    units = f"{graph.prunable.sum():,} of {graph.num_units:,} units"
    lines.append(f"{units} can go, and with them {graph.removable_share():.1%} of the MACs")
    for cause, count in Counter(graph.reasons.values()).most_common():
        lines.append(f"{count:,} units stay: {cause}")
    return "\n".join(lines)
