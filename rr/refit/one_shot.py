"""A network pruned in a minute, without training: what the dead channels did, the living take over.

Channels are chosen by what the network would lose without them once all that reads them is refitted, and then it is
refitted, layer by layer from the input: on what the layers read in the network as pruned so far, to give what they gave
in the full one, with what the residual stream has lost so far added in front of an addition (He et al. 2017, Channel
Pruning for Accelerating Very Deep Neural Networks, section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from rr.config import paper_config
from rr.conversion import ConversionReport, convert
from rr.copies import copy_of
from rr.errors import InputError
from rr.graph import Inputs, Target
from rr.graph.computed import with_plain_layers
from rr.graph.tensors import eval_mode
from rr.planning import check_arguments, plan
from rr.refit.choosing import Chooser, refittable
from rr.refit.feed import Feed, LossFunction
from rr.refit.refitting import LayerRefit, Refitter
from rr.refit.settings import RefitConfig
from rr.selection.mask_selection import targets_of


@dataclass(frozen=True)
class RefitReport:
    """What became of a network that was pruned without training.

    Attributes:
        conversion: that of the refitted network, proven equal to it.
        layers: what each layer's refit came to, in the last round.
    """

    conversion: ConversionReport
    layers: dict[str, LayerRefit]


def prune(
    model: nn.Module,
    example_inputs: Inputs,
    batches: Iterable[Any],
    *,
    loss_fn: LossFunction | None = None,
    refitting: RefitConfig | None = None,
    **settings: Any,
) -> nn.Module:
    """A narrower network with nearly the full one's outputs: no labels, no gradient step.

    Args:
        model: the network, trained; it stays as it is.
        example_inputs: what it is called with: a tensor, a sequence of arguments, or a dict of keyword arguments.
        batches: some hundred to some thousand inputs of the kind that it was trained on, in batches; each is a tensor,
            or what `example_inputs` may be; with `loss_fn`, what that takes.
        loss_fn: `loss_fn(model, batch)`, the task's loss, mean over the batch, says which errors matter. Without it
            they are weighed by the network's own answers.
        refitting: how it is refitted.
        settings: `flops_target` or `params_target`, `layers`, `include`, `exclude`, `min_width`, `width_multiple`, as
            `fast_config` has them.

    Returns:
        The narrow network, in eval mode; its `refit_report` says what became of it (`RefitReport`).

    Raises:
        InputError: if the target can't be reached, there are no inputs, or their values aren't finite.
    """
    check_arguments(model, None)
    how = refitting or RefitConfig()
    feed = Feed.of(model, batches, loss_fn)
    config = paper_config(**{"flops_target": 0.5} | settings, compactors="diagonal")
    planned = plan(model, example_inputs, config)
    full = copy_of(with_plain_layers(model, planned.graph.computed))
    planned = replace(planned, graph=planned.graph.of_plain_layers())
    graph = planned.graph
    work = copy_of(full).requires_grad_(True)
    live = planned.put_compactors(work)
    selected = refittable(graph, work, planned.selected)
    least, multiples = np.maximum(planned.least, 1), graph.multiples_in_units(config.selection.width_multiple)
    chooser = Chooser(graph, selected, least, multiples, how)
    refitter = Refitter(graph, full, feed, how)
    targets = targets_of(config, graph)
    alive = np.ones(graph.num_units, dtype=bool)
    with eval_mode(full), eval_mode(work):
        for number, of_round in enumerate(_rounds(targets, how.rounds)):
            alive = chooser.choose(work, feed, alive, of_round, None if number else refitter.remember)
            live.zero_dead_rows(alive)
            layers = refitter.refit(work, alive)
    widths = graph.macs.group_widths(alive)
    if missed := [target for target in targets if not target.met(widths)]:
        raise InputError(
            f"{missed[0].name} {missed[0].value:g} can't be reached: {missed[0].describe(widths)} remain. Raise it, or "
            "let more layers be pruned (layers='all')"
        )
    trains = {name: parameter.requires_grad for name, parameter in full.named_parameters()}
    for name, parameter in work.named_parameters():
        parameter.requires_grad_(trains.get(name, True))
    slim, conversion = convert(live, example_inputs, alive=alive, selected=selected, min_width=least)
    slim.refit_report = RefitReport(conversion, layers)
    return slim


def _rounds(targets: Sequence[Target], count: int) -> list[list[Target]]:
    """The targets of each round: each round leaves the same share of what the last one left."""
    shares = [target.limit / target.cost.full for target in targets]
    return [
        [
            replace(target, value=share ** (number / count) * target.cost.full) if number < count else target
            for target, share in zip(targets, shares, strict=True)
        ]
        for number in range(1, count + 1)
    ]
