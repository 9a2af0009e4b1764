"""Checkpoints on disk: what of a run is in one, only plain values and tensors, whole or not at all."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rr.whole_files import written_whole
from training import run_folder
from training.callback import Callback, TrainState
from training.distributed import barrier, broadcast_object
from training.meter import Meter
from training.observe import NonFiniteLoss, check_finite, lr_of_step

logger = logging.getLogger(__name__)


def save(path: str | Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; at every moment `path` is either what it was or the whole new file.

    Args:
        path: the file.
        state: tensors, numbers, strings, dicts, lists, tuples.

    Raises:
        OSError: if it can't be written (the disk is full, say).
    """
    with written_whole(path) as beside:
        torch.save(state, beside)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; `weights_only`, so that a file from elsewhere can't run code."""
    return torch.load(path, map_location="cpu", weights_only=True)


def save_run(name: str, state: TrainState, meter: Meter, callbacks: Sequence[Callback]) -> None:
    """Write a checkpoint of the run, from rank 0, on all processes together.

    Args:
        name: of the file, in the run's folder.
        state: where the run stands.
        meter: sums of the epoch so far.
        callbacks: the run's.

    Raises:
        NonFiniteLoss: if something in it isn't finite; the checkpoint before stays.
    """
    check_finite(state, meter)
    if not all(bool(parameter.isfinite().all()) for parameter in state.model.parameters()):
        raise NonFiniteLoss(
            f"a weight isn't finite after step {state.step} (learning rate {lr_of_step(state, state.step):g}): "
            f"lower --lr; {run_folder.LATEST}, if there is one, is from before"
        )
    sums = meter.state_dict()
    if state.world.is_first:
        contents = {
            "recipe": state.log.recipe,
            "epoch": state.epoch,
            "step": state.step,
            "step_in_epoch": state.step - state.epoch * state.steps_per_epoch,
            "meter": sums,
            "model": state.model.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "scheduler": state.scheduler.state_dict(),
            "callbacks": [callback.state_dict() for callback in callbacks],
        }
        save(state.log.folder / name, contents)
    barrier(state.world)


def load_run(state: TrainState, meter: Meter, callbacks: Sequence[Callback]) -> None:
    """Go on from latest.pth, which rank 0 reads for all processes."""
    path = state.log.folder / run_folder.LATEST
    saved = broadcast_object(state.world, load(path) if state.world.is_first else None)
    for callback, callback_state in zip(callbacks, saved["callbacks"], strict=True):
        callback.load_state_dict(callback_state)
    state.model.load_state_dict(saved["model"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.scheduler.load_state_dict(saved["scheduler"])
    meter.load_state_dict(saved["meter"])
    state.epoch, state.step = saved["epoch"], saved["step"]
    logger.info("going on after epoch %d, step %d of %d", state.epoch, state.step, state.total_steps)
