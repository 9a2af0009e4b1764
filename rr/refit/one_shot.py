"""A network pruned in a minute, without training: what the dead channels did, the living take over.

Channels are chosen by what the network would lose without them once all that reads them is refitted, and then it is
refitted, layer by layer from the input: on what the layers read in the network as pruned so far, to give what they gave
in the full one, with what the residual stream has lost so far added in front of an addition (He et al. 2017, Channel
Pruning for Accelerating Very Deep Neural Networks, section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from rr.config import paper_config
from rr.conversion import ConversionReport, convert
from rr.copies import copy_of
from rr.graph import Inputs
from rr.graph.computed import with_plain_layers
from rr.graph.widths import floors
from rr.latency.goal import MULTIPLES, LatencyGoal, LatencyReport, LatencySearch
from rr.latency.settings import Timing
from rr.latency.stopwatch import TimeShares
from rr.planning import check_arguments, plan
from rr.refit.cutting import Refit, cut_and_refit
from rr.refit.feed import Feed, LossFunction
from rr.refit.settings import RefitConfig
from rr.runtime import of_first


@dataclass(frozen=True)
class RefitReport(Refit):
    """What became of a network that was pruned without training.

    Attributes:
        conversion: that of the refitted network, proven equal to it.
        latency: what share of the full network's time it takes; None where none was asked for.
    """

    conversion: ConversionReport
    latency: LatencyReport | None = None

    def as_dict(self) -> dict[str, Any]:
        """All of it but the conversion, as plain values, for JSON."""
        return {**super().as_dict(), **({"latency": self.latency.as_dict()} if self.latency else {})}

    def __str__(self) -> str:
        return super().__str__() + (f"\nit takes {self.latency}" if self.latency else "")


def prune(
    model: nn.Module,
    example_inputs: Inputs,
    batches: Iterable[Any],
    *,
    loss_fn: LossFunction | None = None,
    refitting: RefitConfig | None = None,
    latency_target: float | None = None,
    timing: Timing | TimeShares | None = None,
    **settings: Any,
) -> nn.Module:
    """A narrower network with nearly the full one's outputs: no labels, no gradient step.

    Args:
        model: the network, trained; it stays as it is.
        example_inputs: what it is called with: a tensor, a sequence of arguments, or a dict of keyword arguments.
        batches: some hundred to some thousand inputs of the kind that it was trained on, in batches; each is a tensor,
            or what `example_inputs` may be; with `loss_fn`, what that takes. The last tenth of them is held out, in
            whole batches (`RefitConfig.held_out`): the report is of these. In several processes (torchrun) each gives
            its own share of the inputs, and all come to the same network.
        loss_fn: `loss_fn(model, batch)`, the task's loss, mean over the batch, says which errors matter. Without it
            they are weighed by the network's own answers.
        refitting: how it is refitted.
        latency_target: the share of the full network's time that is to be left, both with BN folded: networks of
            several widths are timed until that is found, so nothing else may run meanwhile. Widths are multiples of 8
            then, or of 4, 2, 1 where none of these is near, unless `width_multiple` is given.
        timing: where time is measured; None: in eager mode, one image, one thread. Or a function that measures it (on
            another device, say): called with the full and a narrow network (in float32 on the CPU, BN folded) and for
            how many seconds to measure, it returns the narrow one's time over the full one's, a number for each of at
            least two rounds.
        settings: `flops_target` or `params_target`, `layers`, `include`, `exclude`, `min_width`, `min_width_share`,
            `width_multiple`, as `fast_config` has them.

    Returns:
        The narrow network, in eval mode; its `refit_report` says what became of it (`RefitReport`), and prints in
        words.

    Raises:
        InputError: if the target can't be reached, there are no inputs, or their values aren't finite.
    """
    check_arguments(model, None)
    goal = None if latency_target is None else LatencyGoal(latency_target, timing or Timing(), _multiples(settings))
    how = refitting or RefitConfig()
    feed = Feed.of(model, batches, loss_fn, how.held_out)
    config = paper_config(**{"flops_target": 1.0 if goal else 0.5} | settings, compactors="diagonal")
    planned = plan(model, example_inputs, config)
    work = copy_of(with_plain_layers(model, planned.graph.computed))
    planned = replace(planned, graph=planned.graph.of_plain_layers())
    live = planned.put_compactors(work)
    latency = None if goal is None else LatencySearch(goal, live, example_inputs)
    found = cut_and_refit(live, planned.selected, config, feed, how, latency)
    chosen = config.selection
    least = floors(planned.graph.macs.group_sizes, chosen.min_width, chosen.min_width_share)
    unfit = np.flatnonzero(planned.selected & ~found.selected).tolist()
    left_out = {**planned.left_out, **dict.fromkeys(unfit, "a layer that reads it can't be refitted")}
    slim, conversion = convert(live, example_inputs, alive=found.alive, left_out=left_out, min_width=least)
    timed = None
    if latency is not None:
        macs_share = conversion.macs_after / conversion.macs_before
        timed = of_first(lambda: latency.report(slim, macs_share, found.multiple))
    slim.refit_report = RefitReport(**vars(found.refit), conversion=conversion, latency=timed)
    return slim


def _multiples(settings: dict[str, Any]) -> tuple[int, ...]:
    """What widths may be multiples of, in a search for a share of the time."""
    return (settings["width_multiple"],) if "width_multiple" in settings else MULTIPLES
