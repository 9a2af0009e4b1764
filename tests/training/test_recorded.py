"""Recorded steps train as others do, the pruner's part in them included; on a CPU operations are noted for that."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from experiments.resrep_callback import ResRepCallback
from rr import InputError, ResRepPruner
from tests.devices import DEVICE, IS_EXACT
from tests.rr.pruners import tiny_pruner
from tests.training.operations import Counted
from tests.training.pruning_state import RULES, state_of
from training import TrainState, World
from training import recorded as recorded_steps
from training.meter import Meter
from training.recorded import WARM_UP, RecordedSteps
from training.recording import CudaGraphs
from training.step import take_step

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("one_thread", "full_precision")]
SOON = {"warmup_steps": 4, "mask_interval": 5, "rows_per_update": 2, "narrow_threshold": 0.9, "penalty": 0.05}
EPOCHS = 5  # of 7 steps
CLOSE = {"rtol": 0, "atol": 0} if IS_EXACT else {"rtol": 1e-2, "atol": 1e-3}


class Never:
    """Before a step that is not alike any other, always: nothing is recorded then."""

    next_step_is_alike = staticmethod(lambda: False)
    after_replay = staticmethod(lambda: None)


def trained(recorder: Counted, rule: str, others: Sequence[object] = (), **settings: object) -> TrainState:
    """A run's steps, as the loop makes them."""
    pruner = tiny_pruner(narrow="full", **SOON | RULES[rule])
    state = state_of(pruner, DEVICE.type, **settings)
    callback, meter = ResRepCallback(pruner), Meter(state.world)
    step = RecordedSteps(state, [callback, *others], recorder)
    for epoch in range(EPOCHS):
        for batch in state.data.train_batches(epoch, batch_size=8, seed=0, device=DEVICE):
            torch.manual_seed(state.step)
            sums = step(batch)
            state.scheduler.step()
            state.step += 1
            meter.add(sums, state.step)
            callback.after_step(state)
    state.evaluations["train"] = meter.epoch().to_dict()
    assert pruner.retired
    assert pruner.steps == state.step == EPOCHS * 7
    return state


def tensors_of(state: TrainState) -> dict[str, Tensor]:
    momenta = state.optimizer.state_dict()["state"].items()
    return state.model.state_dict() | {f"momentum {index}": held["momentum_buffer"] for index, held in momenta}


@pytest.mark.slow
@pytest.mark.parametrize("rule", list(RULES))
def test_replays_train_as_steps_do(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks are updated, channels leave, and compactors retire on the way."""
    monkeypatch.setattr(recorded_steps, "WARM_UP", 1)  # so that some are recorded between all of these
    settings = {"distill": 0.5, "accumulate": 2} if rule == "the paper's" else {}
    recorder, unused = Counted(), Counted()
    recorded, other = trained(recorder, rule, **settings), trained(unused, rule, [Never()], **settings)
    assert unused.recordings == 0
    assert recorder.replays > EPOCHS * 7 / 4
    assert recorder.recordings > 2  # for batches of 7 and 8, and anew once channels have left
    assert recorded.wraps == other.wraps > 0
    losses = [state.evaluations["train"]["loss"] for state in (recorded, other)]
    assert losses[0] == pytest.approx(losses[1], rel=0 if IS_EXACT else 1e-3)
    assert tensors_of(recorded).keys() == tensors_of(other).keys()
    for name, tensor in tensors_of(other).items():
        torch.testing.assert_close(tensors_of(recorded)[name], tensor, **CLOSE)


def test_the_optimiser_keeps_its_numbers_and_its_form() -> None:
    """Checkpoints are those of any run."""
    pruner = tiny_pruner()
    state = state_of(pruner, DEVICE.type)
    groups = [dict(group) for group in state.optimizer.param_groups]
    step = RecordedSteps(state, [ResRepCallback(pruner)], Counted())
    for batch in state.data.train_batches(0, batch_size=8, seed=0, device=DEVICE):
        step(batch)
    assert [{**group, "params": None} for group in state.optimizer.param_groups] == [
        {**group, "params": None} for group in groups
    ]


def test_a_step_that_isnt_recorded_is_the_loops_own_up_to_rounding() -> None:
    one, other = tiny_pruner(), tiny_pruner()
    states = [state_of(pruner, DEVICE.type) for pruner in (one, other)]
    step = RecordedSteps(states[0], [], Counted())
    batches = states[0].data.train_batches(0, batch_size=8, seed=0, device=DEVICE)
    for _, batch in zip(range(WARM_UP - 1), batches, strict=False):
        torch.testing.assert_close(step(batch), take_step(states[1], batch))
    for name, tensor in other.model.state_dict().items():
        torch.testing.assert_close(one.model.state_dict()[name], tensor)


def refused(pruner: ResRepPruner, world: World) -> str:
    state = state_of(pruner, DEVICE.type)
    state.world = world
    with pytest.raises(InputError) as error:
        RecordedSteps(state, [], Counted())
    return str(error.value)


def test_what_cant_be_recorded_is_refused() -> None:
    assert "one process" in refused(tiny_pruner(), World(0, 0, 2, torch.device("cpu")))
    with pytest.raises(InputError, match="CUDA devices only"):
        CudaGraphs(torch.device("cpu"))
