"""A pruning run with a target of time: the MACs that it comes to, before the run and again on the run's own widths."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.asked_latency import AskedLatency
from experiments.deaths import forgotten, random_scores
from experiments.refit_images import refit_images
from experiments.run import Run
from rr import InputError, ResRepConfig, ResRepPruner
from rr.copies import copy_of
from rr.graph import LiveModel
from rr.latency.goal import MULTIPLES, Found, LatencyGoal, LatencyReport, LatencySearch
from rr.latency.search import TOLERANCE
from rr.runtime import as_first_decides
from training import Callback, TrainState
from training.json_files import write_json
from training.run_folder import RESULT, stored_recipe, stored_result

IMAGES, BATCH_SIZE = 640, 64  # training images on which units are ranked before the run

logger = logging.getLogger(__name__)


def goal_of(asked: AskedLatency, multiples: tuple[int, ...]) -> LatencyGoal:
    """What is asked, with these multiples of widths."""
    return LatencyGoal(asked.latency_target, asked.timing, multiples)


def with_flops_target(
    run: Run, config: ResRepConfig, asked: AskedLatency, model: nn.Module, example: Tensor, typed: frozenset[str]
) -> ResRepConfig:
    """The settings with the share of the MACs that a target of time comes to, as far as is known before the run.

    Units are ranked as the first mask update would, had it seen some batches; a run that goes on has its own.

    Args:
        run: the run.
        config: the settings, in the run's own steps.
        asked: the target.
        model: the network as the run starts from it; it stays as it is.
        example: what it is called with.
        typed: the settings that a person gave: a target of MACs is a bound, widths in other multiples stay.

    Raises:
        InputError: if the target can't be reached.
    """
    if asked.latency_target is None:
        return config
    if not run.is_new:
        stored = stored_recipe(run.folder)
        return config.with_settings(**{name: stored[name] for name in ("flops_target", "width_multiple")})
    most = config.target.flops if "flops_target" in typed else None
    loose = config.with_settings(flops_target=most or 1.0)
    scout = ResRepPruner(copy_of(model), example, loose)
    scores = _scores(run, scout)
    multiples = (config.selection.width_multiple,) if "width_multiple" in typed else MULTIPLES
    search = LatencySearch(goal_of(asked, multiples), LiveModel(model, scout.graph), example)
    most_share = scout.targets[0].limit / scout.graph.macs.full
    found = search.find(*_networks(scout, scores), most_share)
    logger.info(
        "%.1f%% of the time (%s) is about %.1f%% of the MACs, widths in multiples of %d: the run's target, to be "
        "looked at again when its masks reach it",
        100 * asked.latency_target,
        asked.timing,
        100 * found.bound,
        found.multiple,
    )
    return config.with_settings(flops_target=found.bound, width_multiple=found.multiple)


def _scores(run: Run, scout: ResRepPruner) -> np.ndarray:
    """[candidates], what units are ranked by: as the run would, or at random where its norms are all alike as yet."""
    if scout.config.selection.score != "taylor":
        return random_scores(scout)
    network = scout.model.to(run.world.device).train()
    for images in refit_images(run.data, IMAGES, BATCH_SIZE, run.recipe.seed, run.world):
        outputs = network(images)
        F.cross_entropy(outputs, outputs.detach().argmax(1)).backward()
        scout.adjust_gradients()
        network.zero_grad()
    return scout.candidate_scores()


def _networks(
    pruner: ResRepPruner, scores: np.ndarray
) -> tuple[Callable[[float, int], np.ndarray], Callable[[int], float]]:
    """Which units stay at a share of the MACs and a multiple of the widths; and the least share with a multiple."""
    macs, others = pruner.graph.macs, pruner.targets[1:]
    gone = pruner.live.remaining.removed

    def left(met: Callable[[np.ndarray], bool], multiple: int) -> np.ndarray:
        alive = ~gone
        alive[pruner.candidates[forgotten(pruner, scores, met, width_multiple=multiple)[0]]] = False
        return as_first_decides(alive, next(pruner.model.parameters()))

    def alive_at(bound: float, multiple: int) -> np.ndarray:
        def met(widths: np.ndarray) -> bool:
            return macs.of_group_widths(widths) <= bound * macs.full and all(each.met(widths) for each in others)

        return left(met, multiple)

    return alive_at, lambda multiple: macs(left(lambda widths: False, multiple)) / macs.full


class TimedTarget(Callback):
    """Times the run's own widths once its masks meet the target, and asks for other MACs where they miss the time.

    Args:
        pruner: of the model that is trained, whose `ResRepCallback` comes after this one.
        asked: the target.
        first: makes the network as the run began, without compactors.
    """

    def __init__(self, pruner: ResRepPruner, asked: AskedLatency, first: Callable[[], nn.Module]) -> None:
        self.pruner, self.asked, self._first = pruner, asked, first
        self._is_done = False

    def search(self) -> LatencySearch:
        """For the run's widths, which stay in the multiples that it began with."""
        goal = goal_of(self.asked, (self.pruner.config.selection.width_multiple,))
        return LatencySearch(goal, LiveModel(self._first().eval(), self.pruner.graph), self.pruner.example_inputs)

    def after_step(self, state: TrainState) -> None:
        pruner = self.pruner
        if self._is_done or state.skipped_in_a_row or not pruner.masks_are_due() or not pruner.target_met:
            return
        self._is_done = True
        search, alive = self.search(), pruner.unmasked.alive
        share, before = search.share_of(alive), pruner.targets[0].value
        if abs(share / self.asked.latency_target - 1) > TOLERANCE:
            self._correct(search, before)
        logger.info(
            "step %d, the masks' widths take %.1f%% of the time, %.1f%% was asked for: MACs to keep %.4f, before %.4f",
            state.step,
            100 * share,
            100 * self.asked.latency_target,
            pruner.targets[0].value,
            before,
        )
        if state.world.is_first:
            note(state.log.folder, {"latency": {"flops_target": pruner.targets[0].value}})

    def _correct(self, search: LatencySearch, before: float) -> None:
        pruner = self.pruner
        near = Found(before, pruner.config.selection.width_multiple, [])
        try:
            pruner.retarget(search.find(*_networks(pruner, pruner.candidate_scores()), near=near).bound)
        except InputError as error:  # a run goes on all the same: its end tells what became of it
            logger.warning("the run keeps its target of MACs: %s", error)
        else:
            pruner.update_masks()

    def state_dict(self) -> dict[str, Any]:
        return {"is_done": self._is_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._is_done = state["is_done"]


def note(folder: Path, findings: dict[str, Any]) -> None:
    """Add to a run's result.json while it is still in training."""
    write_json(folder / RESULT, {**stored_result(folder), **findings})


def noted(run: Run, pruner: ResRepPruner) -> dict[str, Any]:
    """The share of the MACs that a run asked for in the end: a run that is only converted knows its files alone."""
    return stored_result(run.folder).get("latency") or {"flops_target": pruner.targets[0].value}


def measured(run: Run, pruner: ResRepPruner, asked: AskedLatency, slim: nn.Module, macs_share: float) -> LatencyReport:
    """What share of the time the converted network takes, beside what was asked."""
    multiple = pruner.config.selection.width_multiple
    live = LiveModel(run.first_network().eval(), pruner.graph)
    search = LatencySearch(goal_of(asked, (multiple,)), live, pruner.example_inputs)
    return search.report(slim, macs_share, multiple)
