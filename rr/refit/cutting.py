"""A network with compactors, cut to the target and refitted where it stands: the rounds, and what they came to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from rr.config import ResRepConfig
from rr.copies import copy_of
from rr.graph import LiveModel
from rr.graph.tensors import eval_mode
from rr.graph.widths import floors
from rr.latency.goal import LatencySearch
from rr.refit.capture import capture
from rr.refit.choosing import Chooser, readers_of, refittable
from rr.refit.cut_goal import CutGoal
from rr.refit.feed import Feed
from rr.refit.outcome import Loss, Outputs, outcome
from rr.refit.processes import total
from rr.refit.refitting import LayerRefit, Refitter
from rr.refit.settings import RefitConfig


@dataclass(frozen=True)
class Refit:
    """What a refit came to, on the inputs that were held out from it; where none were, on those that it has seen.

    Attributes:
        layers: each layer's outputs, in the last round.
        outputs: the network's own; None where they can't be compared.
        loss: the task's, where it was given.
        fitted: inputs that it was fitted to.
        held_out: inputs that it has not seen.
    """

    layers: dict[str, LayerRefit]
    outputs: Outputs | None
    loss: Loss | None
    fitted: int
    held_out: int

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        found = asdict(self)
        return {name: found[name] for name in ("fitted", "held_out", "outputs", "loss", "layers")}

    def __str__(self) -> str:
        lines = [f"refitted on {self.fitted:,} inputs, and measured on {self._judged}:"]
        if self.outputs is not None:
            lines.append(
                f"the network's outputs differ from the full network's by {self.outputs.before:.2%} with the channels "
                f"cut and nothing refitted, by {self.outputs.after:.2%} refitted (mean square, of their variance)"
            )
        if self.loss is not None:
            lines.append(
                f"the loss is {self.loss.full:.4g} in the full network, {self.loss.before:.4g} cut and not refitted, "
                f"{self.loss.after:.4g} refitted"
            )
        if self.layers:
            name, worst = max(self.layers.items(), key=lambda item: item[1].after)
            lines.append(
                f"of {len(self.layers)} refitted layers {name} is the furthest from what it gave: {worst.before:.2%} "
                f"of its outputs' variance without the refit, {worst.after:.2%} with it"
            )
        return "\n".join(lines)

    @property
    def _judged(self) -> str:
        """What the figures are of, in words."""
        if self.held_out:
            return f"{self.held_out:,} others, which were kept out of it (held out), as new ones would be"
        return "the same ones, since none were held out: on new ones it is likely worth less"


@dataclass(frozen=True)
class Cut:
    """What is left of a network, and what its refit came to.

    Attributes:
        alive: [num_units] of bool, the units that stay.
        selected: [num_units] of bool, those that could have gone.
        refit: the report.
        multiple: what the channels of a layer are a multiple of.
        flops_target: the share, or number, of the MACs that was the bound; None where there was none.
    """

    alive: np.ndarray
    selected: np.ndarray
    refit: Refit
    multiple: int
    flops_target: float | None


def cut_and_refit(
    live: LiveModel,
    selected: np.ndarray,
    config: ResRepConfig,
    feed: Feed,
    how: RefitConfig,
    latency: LatencySearch | None = None,
) -> Cut:
    """Choose the units that go, set their rows to zero and refit what reads them, in place.

    Args:
        live: the network, with compactors that are identities.
        selected: [num_units] of bool, the units that may go.
        config: the target, least width and multiples.
        feed: the images.
        how: how it is refitted.
        latency: finds the share of the MACs for a target of time; the config's is the most that may be kept then.

    Raises:
        InputError: if the target can't be reached, or values aren't finite.
    """
    graph, work, full = live.graph, live.model, copy_of(live.model)
    selected = refittable(graph, work, selected)
    least = floors(graph.macs.group_sizes, config.selection.min_width, config.selection.min_width_share)
    chooser, refitter = Chooser(graph, selected, least, how), Refitter(graph, full, feed, how)
    goal = CutGoal(config, live, selected, least, latency)
    alive, layers = np.ones(graph.num_units, dtype=bool), {}
    with eval_mode(full), eval_mode(work), _all_trained(work):
        capture(work, readers_of(graph, work, selected), how.places, feed, refitter.remember, feed.unseen)
        for number in range(1, how.rounds + 1):
            order = chooser.order(work, feed, alive, goal.cost, refitter.remember if number == 1 else None)
            alive = goal.left(order, number, how.rounds)
            del order  # and all that it would take to go on with it
            live.zero_dead_rows(alive)
            layers = refitter.refit(work, alive)
        goal.check(alive)
        return Cut(alive, selected, _report(full, live, alive, layers, feed), goal.multiple, goal.flops_target)


def _report(
    full: nn.Module, refitted: LiveModel, alive: np.ndarray, layers: dict[str, LayerRefit], feed: Feed
) -> Refit:
    like = next(full.parameters())
    fitted, held_out = (round(total(feed.images_in(numbers), like)) for numbers in (feed.fitted, feed.unseen))
    cut = refitted.follower(copy_of(full))
    cut.zero_dead_rows(alive)
    judged = feed.unseen if held_out else feed.fitted
    outputs, loss = outcome(full, cut.model, refitted.model, feed, judged)
    return Refit(layers, outputs, loss, fitted, held_out)


@contextmanager
def _all_trained(model: nn.Module) -> Iterator[None]:
    """Within the context all parameters get gradients, as the choice needs them."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    model.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
