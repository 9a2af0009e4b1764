"""The first implementation's converter, under its names: a model and hand-written tables in, a narrow network out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from rr.compactors import find_compactors
from rr.conversion.converter import convert
from rr.conversion.report import ConversionReport
from rr.errors import InputError
from rr.graph import ChannelGraph, Inputs, LayerTables, LiveModel
from rr.graph.tables import MacsOfDeps
from rr.weights import save_converted

logger = logging.getLogger(__name__)


def compactor_convert(
    model: nn.Module,
    origin_deps: Sequence[int],
    thresh: float,
    succeeding_strategy: Mapping[int, int | Sequence[int]],
    follow_dict: Mapping[int, int] | None = None,
    *,
    example_inputs: Inputs,
    macs_of_deps: MacsOfDeps | None = None,
    save_path: str | Path | None = None,
) -> tuple[nn.Module, ConversionReport]:
    """Convert a model that was trained with compactors, its channels tied as the tables say, and prove it equal.

    Args:
        model: the model with its compactors.
        origin_deps, succeeding_strategy, follow_dict, macs_of_deps: as in `LayerTables`.
        thresh: rows with a smaller norm are dropped.
        example_inputs: what the model is called with.
        save_path: where to write the narrow network (HDF5 with `deps`, and `.pth` beside it).

    Returns:
        The narrow network and the report.

    Raises:
        InputError: if the model has no compactors, or the tables don't fit it.
        ConversionError: if the proof fails.
    """
    if not find_compactors(model):
        raise InputError("the model has no compactors to convert: load it with rr.weights.load_network")
    tables = LayerTables(origin_deps, succeeding_strategy, follow_dict or {}, macs_of_deps)
    graph = ChannelGraph(model, example_inputs, tables=tables)
    slim, report = convert(LiveModel(model, graph), example_inputs, threshold=thresh)
    logger.info("converted to deps %s, %.6f of the MACs", list(report.widths), report.macs_ratio)
    if save_path is not None:
        save_converted(save_path, slim)
    return slim, report


# MobileNet-v1 had a converter of its own in the original; depthwise layers need none here.
compactor_convert_mi1 = compactor_convert
