"""A training that begins with the cut: a pruner's network cut to its target and refitted before the first step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rr.compactors import CompactorRows
from rr.errors import InputError
from rr.latency.goal import LatencySearch
from rr.pruner import ResRepPruner
from rr.refit.cutting import Refit, cut_and_refit
from rr.refit.feed import Feed, LossFunction
from rr.refit.settings import RefitConfig


def cut_at_once(
    pruner: ResRepPruner,
    batches: Iterable[Any],
    *,
    loss_fn: LossFunction | None = None,
    refitting: RefitConfig | None = None,
    latency: LatencySearch | None = None,
) -> Refit:
    """Cut a pruner's network to its target as `rr.prune` does, in place, so that it trains narrow from the start.

    Before the first step, with the settings of `cut_config`: they leave the masks alone from then on. The channels that
    go are masked, their compactor rows are zero, and what reads them is refitted; call `pruner.narrow()` next, which
    takes them out of the network.

    Args:
        pruner: on the trained network, with no step counted yet.
        batches, loss_fn, refitting: as in `rr.prune`.
        latency: finds the share of the MACs for a share of the time, which is the pruner's target from then on.

    Returns:
        What the refit came to.

    Raises:
        InputError: if training has begun, masks would be chosen anew later, layers compute their weights, or as
            `rr.prune` does.
    """
    check_can_be_cut(pruner)
    how = refitting or RefitConfig()
    feed = Feed.of(pruner.model, batches, loss_fn, how.held_out)
    cut = cut_and_refit(pruner.live, pruner.selected, pruner.config, feed, how, latency)
    if latency is not None:
        pruner.retarget(cut.flops_target)
    compactors = [pruner.compactors[site.host] for site in pruner.sites]
    units = [site.units for site in pruner.sites]
    CompactorRows(compactors, units, pruner.selected, pruner.config).set_masks(cut.alive)
    return cut.refit


def check_can_be_cut(pruner: ResRepPruner) -> None:
    """Check that a pruner's network can be cut at once; it takes no time.

    Raises:
        InputError: if not.
    """
    if pruner.steps or not pruner.unmasked.alive.all():
        raise InputError("the network is cut at once before the first step, and this pruner has begun: make a new one")
    if pruner.config.compactors != "diagonal" or pruner.config.selection.tighten_steps:
        raise InputError("a network that is cut at once needs the settings of cut_config: give the pruner these")
    if pruner.graph.computed:
        raise InputError(
            f"{next(iter(pruner.graph.computed))} computes its weight from other parameters, so it can't be refitted "
            "in training: prune with rr.prune, which makes it a plain layer, and train what that returns"
        )
