"""What of a network can be pruned, and why the rest can't. What `tools/explain.py` prints."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from base_model import build_any, is_file, model_info, model_names
from rr import ChannelGraph, InputError, explain
from rr.conversion import rehearse
from rr.runtime import stages
from training import logged_on_terminal

CLASSES = 1000  # as the usual images of 3 x 224 x 224: what a function in a file is asked for where nobody says more


@logged_on_terminal()
def explained(
    name: str, image_size: int | None = None, in_channels: int | None = None, num_classes: int | None = None
) -> str:
    """A table by layer, a line per cause, and the share of the MACs that can go, as text.

    Args:
        name: a name that `build_any` takes.
        image_size: side of the images, in pixels; None for the network's own, else 224.
        in_channels: channels of the images; None for the network's own, else 3.
        num_classes: outputs; None for the network's own, `CLASSES` for a function in a file.

    Raises:
        InputError: for what a user can put right.
    """
    given = {"--image-size": image_size, "--in-channels": in_channels, "--num-classes": num_classes}
    for option, value in given.items():
        if value is not None and value < 1:
            raise InputError(f"{option} is {value}: give at least 1")
    known = model_info(name) if name in model_names() else None
    size = image_size or (known.image_size if known else 224)
    channels = in_channels or (known.in_channels if known else 3)
    classes = num_classes or (CLASSES if is_file(name) else None)
    model, images = build_any(name, classes, channels, size).eval(), torch.zeros(1, channels, size, size)
    with stages("tracing the network", "rehearsing a conversion") as over:
        graph = ChannelGraph(model, images)
        over()
        graph = rehearse(model, graph, images, graph.prunable)
        over()
    full = np.ones(graph.num_units, dtype=bool)
    lines = [explain(graph), "", f"{name} at {channels} x {size} x {size}: {graph.macs(full):,} MACs"]
    lines += [can_go(graph, layers) for layers in ("internal", "all")]
    for cause, count in Counter(graph.reasons.values()).most_common():
        lines.append(f"{count:,} units stay: {cause}")
    return "\n".join(lines)


def can_go(graph: ChannelGraph, layers: str) -> str:
    """How many units can go with a choice of `--layers`, and the MACs with them, in a line."""
    try:
        selected = graph.select(layers)
    except InputError:
        return f"with --layers {layers} no unit can go"
    return (
        f"with --layers {layers} {selected.sum():,} of {graph.num_units:,} units can go, and with them "
        f"{graph.removable_share(selected):.1%} of the MACs"
    )
