"""A model with compactors made a plain, narrow one, and proven equal (section 3.2)."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from rr.conversion.alive import alive_units
from rr.conversion.differences import difference_of
from rr.conversion.folding import fold, layer_hooks, with_unfoldable
from rr.conversion.proof import (
    FLOAT64_TOLERANCE,
    ConversionError,
    Probe,
    ThresholdError,
    exact_copy,
    in_float32,
    outputs_of,
    probe_of,
    probes_elsewhere,
)
from rr.conversion.report import ConversionReport, report_of
from rr.conversion.size_branches import one_way_branches
from rr.copies import copy_of
from rr.errors import first_line
from rr.graph import Inputs, LiveModel
from rr.graph.widths import PerGroup
from rr.runtime import is_first, stages
from rr.weights.networks import note_widths

logger = logging.getLogger(__name__)

FLOAT32_TOLERANCE = 1e-5  # or 10 times the unconverted model's own float32 error, where that is more
CUT_TOLERANCE = 1e-3


@torch.inference_mode(False)  # what is made in inference mode can never be trained
def convert(
    live: LiveModel,
    example_inputs: Inputs,
    *,
    threshold: float = 1e-5,
    min_width: PerGroup = 1,
    width_multiple: int = 1,
    alive: np.ndarray | None = None,
    left_out: Mapping[int, str] | None = None,
    prove: bool = True,
) -> tuple[nn.Module, ConversionReport]:
    """A plain, narrow copy of the model: compactors and BN folded, dead channels gone. The model stays as it is.

    Args:
        live: the model, and what is left of it.
        example_inputs: what it is called with.
        threshold: rows (units) with a smaller norm are dropped; section 3.3 has 1e-5.
        min_width: units that each group ([groups]) or any keeps all the same, those with the largest norms; 0 only
            where a group may vanish (`rr.graph.vanishing`).
        width_multiple: what the channels of a group's layers are to be a multiple of, by keeping more units.
        alive: [num_units] of bool, the units that stay, whatever the rows' norms: what a model has lost must also be
            left out of an average of its weights, which lags. Then `cut_difference` has no limit.
        left_out: the units that can be pruned and weren't to be -> why, for the report.
        prove: compare both models on inputs shaped like the examples and of the other sizes that the model takes
            (`rr.conversion.proof`), in float64 and float32; so too a model in half precision, whose copy is then
            rounded as the model was.

    Returns:
        The narrow model and the report.

    Raises:
        ThresholdError: if rows under the threshold are alive.
        ConversionError: if they differ otherwise by more than the tolerances above.
    """
    graph = live.graph
    norms = live.unit_norms()
    follows = alive is not None
    if alive is None:
        alive = alive_units(live, norms, threshold, min_width, width_multiple)
    alive, from_dead = with_unfoldable(live, alive)
    with stages("running the trained network", "folding", "proving") as over:
        expected = _expected(live, alive, example_inputs) if prove else None
        over()
        start = time.perf_counter()
        folded = fold(live, alive, from_dead)
        seconds = time.perf_counter() - start
        _tell_of_hooks(live)
        over()
        differences = {} if expected is None else _differences(expected, folded)
        over()
    anchor = next(live.model.parameters())
    slim = note_widths(folded.to(anchor.dtype).to(anchor.device), graph.widths(alive))
    parameters = sum(parameter.numel() for parameter in slim.parameters())
    found = {"parameters_after": parameters, "fold_seconds": seconds, **differences}
    report = report_of(live, alive, norms, threshold, left_out, **found)
    if prove:
        _check(report, CUT_TOLERANCE if not follows else math.inf)
    return slim, report


def _tell_of_hooks(live: LiveModel) -> None:
    layers = (layer.name for layer in live.graph.layers.values() if layer.name in live.modules)
    if (hooked := [name for name in layers if layer_hooks(live.graph, name, live.modules[name])]) and is_first():
        logger.warning(
            "your hooks on %s are in the converted model too: they now see its narrow outputs, which the BN behind a "
            "convolution and the compactor have gone into",
            ", ".join(hooked),
        )


@dataclass(frozen=True)
class _Expected:
    """What the unconverted model computes.

    Attributes:
        probes: outputs with the dead rows at zero, at several sizes.
        cut_difference: how far those are from the outputs as trained.
        own_error: how far the model in float32 is from itself.
        one_way_branches: where sizes compare in the same way in all probes.
    """

    probes: list[Probe]
    cut_difference: float
    own_error: float
    one_way_branches: tuple[str, ...]


def _expected(live: LiveModel, alive: np.ndarray, example_inputs: Inputs) -> _Expected:
    """Run a copy of the model in float64: the only such copy, gone before there is a folded one.

    Raises:
        InputError: if it doesn't run in float64 or float32.
    """
    exact = exact_copy(live.model)
    trained = probe_of(exact, example_inputs)
    live.follower(exact).zero_dead_rows(alive)
    zeroed = replace(trained, outputs=outputs_of(exact, trained.inputs, torch.float64))
    others = list(probes_elsewhere(exact, example_inputs))
    rounded = in_float32(exact, trained)
    first = zeroed.measured(rounded)
    inputs = [first.inputs, *(probe.inputs for probe in others)]
    return _Expected(
        probes=[first, *(probe.measured_as(first) for probe in others)],
        cut_difference=difference_of(trained.outputs, zeroed.outputs, rounded=True),
        own_error=first.difference(rounded, rounded=True),
        one_way_branches=one_way_branches(exact, inputs) if others else (),  # in float32 by now
    )


def _differences(expected: _Expected, folded: nn.Module) -> dict[str, object]:
    """The report's differences, by name, and where they were found."""
    probes, first = expected.probes, expected.probes[0]
    return {
        "cut_difference": expected.cut_difference,
        "float64_difference": float(np.max([probe.difference(_at(probe, folded, torch.float64)) for probe in probes])),
        "float32_difference": first.difference(_at(first, copy_of(folded), torch.float32), rounded=True),
        "float32_own_error": expected.own_error,
        "proven_at": tuple(probe.shape for probe in probes),
        "one_way_branches": expected.one_way_branches,
        "fixed_arguments": tuple(first.inputs.others),
    }


def _at(probe: Probe, model: nn.Module, dtype: torch.dtype) -> list[Tensor]:
    """The model's outputs for a probe's inputs.

    Raises:
        ConversionError: if it fails at a size that the unconverted model takes.
    """
    try:
        return outputs_of(model, probe.inputs, dtype)
    except Exception as error:  # whatever the user's forward raises
        raise ConversionError(
            f"the converted model fails on inputs of {probe.shape}, which the trained one takes: {first_line(error)}"
        ) from error


def _check(report: ConversionReport, cut_tolerance: float) -> None:
    limits = {
        "float64_difference": FLOAT64_TOLERANCE,
        "float32_difference": max(FLOAT32_TOLERANCE, 10 * report.float32_own_error),
        "cut_difference": cut_tolerance,
    }
    for name, limit in limits.items():
        difference = getattr(report, name)
        if name == "cut_difference" and difference > limit:
            raise ThresholdError(
                f"rows under the threshold, with norms up to {report.largest_dropped:.1e}, still matter: without them "
                f"the outputs change (cut_difference) by {difference:.2e} of the largest, and {limit:.2e} is allowed. "
                "Nothing was written: give a lower threshold (a run's training isn't lost: with -c continue)"
            )
        if not difference <= limit:  # NaN fails as well
            raise ConversionError(
                f"the converted model is not equal to the trained one: {name} is {difference:.2e}, at most "
                f"{limit:.2e} is allowed. Nothing was written; please report the model."
            )
