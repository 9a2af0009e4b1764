"""A model with compactors made a plain, narrow one, and proven equal (section 3.2)."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rr.conversion.alive import alive_units
from rr.conversion.folding import fold
from rr.conversion.proof import (
    FLOAT64_TOLERANCE,
    ConversionError,
    difference_of,
    exact_copy,
    inputs_and_outputs,
    outputs_of,
)
from rr.conversion.report import ConversionReport, report_of
from rr.graph import ExampleInputs, Inputs, LiveModel
from rr.graph.widths import PerGroup
from rr.runtime import stages
from rr.weights.networks import note_widths

FLOAT32_TOLERANCE = 1e-6  # or 4 times the unconverted model's own float32 error, where that is more
CUT_TOLERANCE = 1e-3


def convert(
    live: LiveModel,
    example_inputs: Inputs,
    *,
    threshold: float = 1e-5,
    min_width: PerGroup = 1,
    width_multiple: int = 1,
    alive: np.ndarray | None = None,
    selected: np.ndarray | None = None,
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
        selected: [num_units] of bool, the units that were to be pruned; for the report.
        prove: compare both models on inputs shaped like the examples (`rr.conversion.proof`), in float64 and float32;
            so too a model in half precision, whose copy is then rounded as the model was.

    Returns:
        The narrow model and the report.

    Raises:
        ConversionError: if they differ by more than the tolerances above.
    """
    graph = live.graph
    norms = live.unit_norms()
    follows = alive is not None
    if alive is None:
        alive = alive_units(live, norms, threshold, min_width, width_multiple)
    with stages("running the trained network", "folding", "proving") as over:
        expected = _expected(live, alive, example_inputs) if prove else None
        over()
        start = time.perf_counter()
        folded = fold(live, alive)
        seconds = time.perf_counter() - start
        over()
        differences = {} if expected is None else _differences(expected, folded)
        over()
    anchor = next(live.model.parameters())
    slim = note_widths(folded.to(anchor.dtype).to(anchor.device), graph.widths(alive))
    parameters = sum(parameter.numel() for parameter in slim.parameters())
    found = {"parameters_after": parameters, "fold_seconds": seconds, **differences}
    report = report_of(live, alive, norms, threshold, selected, **found)
    if prove:
        _check(report, CUT_TOLERANCE if not follows else math.inf)
    return slim, report


@dataclass(frozen=True)
class _Expected:
    """Inputs and what the unconverted model makes of them.

    Attributes:
        inputs: the inputs.
        trained: outputs in float64, as trained.
        zeroed: outputs in float64, with the dead rows at zero.
        float32: as `zeroed`, in float32.
    """

    inputs: ExampleInputs
    trained: list[Tensor]
    zeroed: list[Tensor]
    float32: list[Tensor]


def _expected(live: LiveModel, alive: np.ndarray, example_inputs: Inputs) -> _Expected:
    """Run a copy of the model in float64: the only such copy, gone before there is a folded one."""
    exact = exact_copy(live.model)
    inputs, trained = inputs_and_outputs(exact, example_inputs)
    live.follower(exact).zero_dead_rows(alive)
    zeroed = outputs_of(exact, inputs, torch.float64)
    return _Expected(inputs, trained, zeroed, float32=outputs_of(exact, inputs, torch.float32))


def _differences(expected: _Expected, folded: nn.Module) -> dict[str, float]:
    """The report's differences, by name."""
    exact = outputs_of(folded, expected.inputs, torch.float64)
    rounded = outputs_of(copy.deepcopy(folded), expected.inputs, torch.float32)
    return {
        "cut_difference": difference_of(expected.trained, expected.zeroed, rounded=True),
        "float64_difference": difference_of(expected.zeroed, exact),
        "float32_difference": difference_of(expected.zeroed, rounded, rounded=True),
        "float32_own_error": difference_of(expected.zeroed, expected.float32, rounded=True),
    }


def _check(report: ConversionReport, cut_tolerance: float) -> None:
    limits = {
        "float64_difference": FLOAT64_TOLERANCE,
        "float32_difference": max(FLOAT32_TOLERANCE, 4 * report.float32_own_error),
        "cut_difference": cut_tolerance,
    }
    for name, limit in limits.items():
        difference = getattr(report, name)
        if not difference <= limit:  # NaN fails as well
            raise ConversionError(
                f"the converted model is not equal to the trained one: {name} is {difference:.2e}, at most "
                f"{limit:.2e} is allowed. Nothing was written; please report the model."
            )
