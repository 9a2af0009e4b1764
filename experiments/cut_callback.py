"""A pruning run that begins with the cut: the network is refitted on training images before the first step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from torch import Tensor

from experiments.refit_images import refit_images
from experiments.resrep_callback import BEFORE_FIRST_MASK
from rr import RefitConfig, ResRepPruner, cut_at_once
from rr.latency import LatencySearch
from training import Callback, TrainState, evaluate_state
from training.json_files import write_json
from training.run_folder import RESULT

BATCH_SIZE = 100  # images that run side by side in the refit

logger = logging.getLogger(__name__)


class CutCallback(Callback):
    """Cuts the network to its target once, before the first step of a run; a run that is gone on with has it narrow.

    Args:
        pruner: of the model that is trained, whose `ResRepCallback` comes before this one.
        images: how many training images to refit it on.
        latency: makes what finds the share of the MACs for a share of the time; None where there is no such target.
    """

    def __init__(self, pruner: ResRepPruner, images: int, latency: Callable[[], LatencySearch] | None = None) -> None:
        self.pruner, self.images, self._latency = pruner, images, latency

    def before_first_step(self, state: TrainState) -> None:
        pruner = self.pruner
        state.save_weights(BEFORE_FIRST_MASK)
        refitting = RefitConfig(seed=state.recipe.seed)
        began = time.perf_counter()
        latency = self._latency() if self._latency else None
        refit = cut_at_once(pruner, self._batches(state, refitting), refitting=refitting, latency=latency)
        pruner.narrow()
        state.rewrap()
        seconds = time.perf_counter() - began
        logger.info("cut at once in %.0f s, channels left by layer: %s; %s", seconds, pruner.unmasked.widths, refit)
        if not pruner.retired:
            logger.info("some compactors can't be folded in training: they stay until the conversion")
        val = evaluate_state(state)
        logger.info("val after the cut, top1=%.4f, top5=%.4f, loss=%.6f", val.top1, val.top5, val.loss)
        if state.world.is_first:
            found = {"cut": {**val.to_dict(), "seconds": seconds, "refit": refit.as_dict()}}
            if latency is not None:
                found["latency"] = {"flops_target": pruner.targets[0].value}
            write_json(state.log.folder / RESULT, found)

    def _batches(self, state: TrainState, refitting: RefitConfig) -> Iterator[Tensor]:
        return refit_images(state.data, self.images, BATCH_SIZE, refitting.seed, state.world, refitting.held_out)
