"""What is watched while a run trains: means since the last look, evaluations, records, whether all is finite."""

import logging
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from rr.errors import InputError
from training.callback import Callback, TrainState
from training.checkpoint_files import LATEST
from training.evaluation import Evaluation, evaluate
from training.meter import Meter

logger = logging.getLogger(__name__)


class NonFiniteLoss(InputError):
    """A loss or a weight was infinite or not a number; latest.pth is from before it."""


def look(state: TrainState, meter: Meter, callbacks: Sequence[Callback], bar: tqdm) -> None:
    """Read what the device has added up since the last look, and report it.

    Args:
        state: where the run stands.
        meter: what has added up.
        callbacks: the run's, which may add to the report.
        bar: the progress bar.

    Raises:
        NonFiniteLoss: if a loss wasn't finite.
    """
    check_finite(state, meter)
    seen = meter.look()
    if seen is None:
        return
    progress = {name: text for callback in callbacks for name, text in callback.progress().items()}
    state.log.curves("Train", seen.train, state.step)
    measured = callback_scalars(callbacks)
    state.log.scalars({"learning rate": lr_of_step(state, state.step), **measured}, state.step)
    bar.set_description(
        f"epoch {min(state.step // state.steps_per_epoch + 1, state.recipe.epochs)}/{state.recipe.epochs}"
    )
    bar.set_postfix({"loss": f"{seen.train.loss:.4f}", "top1": f"{seen.train.top1:.2f}", **progress})
    logger.info(
        "step %d of %d, lr=%.6g, loss=%.5f, top1=%.3f%s, TRAIN speed: %.1f examples/sec",
        state.step,
        state.total_steps,
        lr_of_step(state, state.step),
        seen.train.loss,
        seen.train.top1,
        "".join(f", {name}={text}" for name, text in progress.items()),
        seen.speed,
        extra={"progress": True},
    )


def check_finite(state: TrainState, meter: Meter) -> None:
    """Check that every loss since the run's start was finite, on all processes.

    Raises:
        NonFiniteLoss: if one wasn't.
    """
    step = meter.first_bad_step()
    if step is not None:
        raise NonFiniteLoss(
            f"the loss isn't finite at step {step} (learning rate {lr_of_step(state, step):g}): lower --lr or add "
            f"--warmup-epochs; {LATEST}, if there is one, is from before"
        )


def lr_of_step(state: TrainState, step: int) -> float:
    """The recipe's learning rate in the step-th step, counted from 1."""
    return state.recipe.lr * state.scheduler.lr_lambdas[0](step - 1)


def evaluate_state(state: TrainState) -> Evaluation:
    """Evaluate the model of a run on the validation images, in the recipe's batches and precision."""
    recipe = state.recipe
    return evaluate(
        state.model,
        state.data,
        state.world,
        batch_size=recipe.batch_size,
        amp=recipe.amp,
        channels_last=recipe.channels_last,
    )


def validate(state: TrainState) -> Evaluation:
    """Evaluate the model, log the result and add it to the curves."""
    val = evaluate_state(state)
    logger.info("val at epoch %d, top1=%.4f, top5=%.4f, loss=%.6f", state.epoch, val.top1, val.top5, val.loss)
    state.log.curves("Val", val, state.step)
    state.evaluations = {"first": val.to_dict(), **state.evaluations, "last": val.to_dict()}
    return val


def callback_scalars(callbacks: Sequence[Callback]) -> dict[str, float]:
    """What the callbacks measure, by name."""
    return {name: value for callback in callbacks for name, value in callback.scalars().items()}


def callback_record(callbacks: Sequence[Callback]) -> dict[str, Any]:
    """What the callbacks add to a line of metrics.jsonl: their `scalars`, where there are any, and their records."""
    measured = callback_scalars(callbacks)
    records = {name: values for callback in callbacks for name, values in callback.records().items()}
    return {**({"scalars": measured} if measured else {}), **records}


def epoch_record(
    state: TrainState, trained: Evaluation | None, val: Evaluation | None, callbacks: Sequence[Callback], seconds: float
) -> dict[str, Any]:
    """One line of metrics.jsonl; all that depends on the machine is under `time`.

    Args:
        state: where the run stands.
        trained: means over the epoch's training, if any.
        val: the epoch's evaluation, if any.
        callbacks: the run's.
        seconds: what the epoch took.
    """
    record: dict[str, Any] = {"epoch": state.epoch, "step": state.step, "lr": lr_of_step(state, state.step)}
    record["skipped_steps"] = state.skipped
    if trained is not None:
        record["train"] = trained.to_dict()
    if val is not None:
        record["val"] = val.to_dict()
    return {**record, **callback_record(callbacks), "time": {"seconds": round(seconds, 3)}}
