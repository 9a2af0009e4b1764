"""What of a run is in a checkpoint, and how the run goes on from it."""

import logging
from collections.abc import Sequence

from rr.errors import InputError, WriteError, first_line
from training.callback import Callback, TrainState
from training.checkpoint_files import LATEST, newest, save
from training.distributed import barrier, of_first_rank
from training.meter import Meter
from training.observe import NonFiniteLoss, check_finite, lr_of_step

logger = logging.getLogger(__name__)


def save_run(name: str, state: TrainState, meter: Meter, callbacks: Sequence[Callback]) -> None:
    """Write a checkpoint of the run, from rank 0, on all processes together.

    Args:
        name: of the file, in the run's folder.
        state: where the run stands.
        meter: sums of the epoch so far.
        callbacks: the run's.

    Raises:
        NonFiniteLoss: if something in it isn't finite; the checkpoint before stays.
        WriteError: if it can't be written; the checkpoint before stays.
    """
    check_finite(state, meter)
    if not all(bool(parameter.isfinite().all()) for parameter in state.model.parameters()):
        raise NonFiniteLoss(
            f"a weight isn't finite after step {state.step} (learning rate {lr_of_step(state, state.step):g}): "
            f"lower --lr; {LATEST}, if there is one, is from before"
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
            "evaluations": state.evaluations,
            "skipped": {"steps": state.skipped, "in_a_row": state.skipped_in_a_row},
        }
        if not state.log.folder.is_dir():
            raise WriteError(f"can't write {state.log.folder / name}: the folder is gone")
        save(state.log.folder / name, contents, state.recipe.keep if name == LATEST else None)
    barrier(state.world)


def load_run(state: TrainState, meter: Meter, callbacks: Sequence[Callback]) -> None:
    """Go on from the newest whole checkpoint, which rank 0 reads for all processes.

    Raises:
        InputError: if there is none, or it isn't one of this network.
    """
    saved = of_first_rank(state.world, lambda: newest(state.log.folder))
    try:
        for callback, callback_state in zip(callbacks, saved["callbacks"], strict=True):
            callback.load_state_dict(callback_state)
        state.model.load_state_dict(saved["model"])
        state.optimizer.load_state_dict(saved["optimizer"])
        state.scheduler.load_state_dict(saved["scheduler"])
        meter.load_state_dict(saved["meter"])
        _check_place(saved["epoch"], saved["step"], state)
        skipped = saved.get("skipped", {"steps": 0, "in_a_row": 0})  # older checkpoints have none
        state.skipped, state.skipped_in_a_row = int(skipped["steps"]), int(skipped["in_a_row"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:  # whole, but not its
        raise InputError(
            f"the checkpoint in {state.log.folder} isn't one of this run ({first_line(error)}): go on with the network "
            "and the version that wrote it, or start again with '-c fs'"
        ) from error
    state.epoch, state.step = saved["epoch"], saved["step"]
    state.evaluations = saved.get("evaluations", {})
    logger.info("going on after epoch %d, step %d of %d", state.epoch, state.step, state.total_steps)


def _check_place(epoch: int, step: int, state: TrainState) -> None:
    """Check that a run of this length can stand there.

    Raises:
        ValueError: if it can't.
    """
    is_last = step == state.total_steps
    if step > state.total_steps or not (is_last or epoch == step // state.steps_per_epoch):
        raise ValueError(f"it stands after epoch {epoch}, step {step}, of {state.total_steps} steps")
