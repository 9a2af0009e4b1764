"""Training steps that are recorded once, hooks and optimiser included, and then replayed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from data import Batch
from rr.errors import InputError
from training.callback import Callback, TrainState
from training.recording import Recorder
from training.step import take_step

WARM_UP = 3  # steps of a kind before one is recorded: kernels are chosen and memory is found in them


@dataclass
class _Recording:
    """A recorded step: what it reads, what it says, and how it is done again."""

    images: torch.Tensor
    labels: torch.Tensor
    sums: torch.Tensor
    replay: Callable[[], None]


class RecordedSteps:
    """`take_step`, recorded for each size of batch.

    For networks whose operations take a GPU less time than it takes a CPU to launch them, one by one. Python's part in
    a step (the optimiser's hooks) doesn't run in a replay: callbacks do what is left of it in `after_replay`, and say
    in `next_step_is_alike` which steps must not be replayed. All is recorded anew after `TrainState.rewrap`.

    Args:
        state: the run.
        callbacks: its callbacks.
        recorder: of the run's device.

    Raises:
        InputError: with several processes, or another compile mode than the default.
    """

    def __init__(self, state: TrainState, callbacks: Sequence[Callback], recorder: Recorder) -> None:
        if state.world.size > 1:
            raise InputError("cuda_graph works with one process only: leave --cuda-graph out")
        self._state, self._callbacks, self._recorder = state, callbacks, recorder
        groups = state.optimizer.param_groups
        self._rates = torch.zeros(len(groups), device=state.world.device)  # float32, as fused optimisers read them
        self._recordings: dict[object, _Recording] = {}
        self._seen: Counter[object] = Counter()
        self._wraps = state.wraps

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Train on one batch; returns its `batch_sums`, to be read before the next call."""
        state = self._state
        if self._wraps != state.wraps:
            self._recordings.clear()
            self._seen.clear()
            self._wraps = state.wraps
        kind = batch.images.shape, batch.global_size, state.is_taught
        alike = all(callback.next_step_is_alike() for callback in self._callbacks)
        with self._recorder.in_order(), self._rates_on_device():
            if alike and kind in self._recordings:
                return self._replayed(self._recordings[kind], batch)
            if alike and self._seen[kind] >= WARM_UP:
                self._recordings[kind] = recording = self._recorded(batch)
                recording.replay()  # recording did Python's part alone
                return recording.sums
            self._seen[kind] += 1
            return take_step(state, batch)

    def _recorded(self, batch: Batch) -> _Recording:
        images, labels = batch.images.clone(), batch.labels.clone()
        made: list[torch.Tensor] = []
        replay = self._recorder.record(
            lambda: made.append(take_step(self._state, Batch(images, labels, batch.global_size)))
        )
        return _Recording(images, labels, made[0], replay)

    def _replayed(self, recording: _Recording, batch: Batch) -> torch.Tensor:
        recording.images.copy_(batch.images)
        recording.labels.copy_(batch.labels)
        recording.replay()
        for callback in self._callbacks:
            callback.after_replay()
        return recording.sums

    @contextmanager
    def _rates_on_device(self) -> Iterator[None]:
        """Within the context, the optimiser reads its rates from the device, where a replay finds the present ones.

        Only SGD's fused form does that without waiting; schedule and checkpoints go on with plain numbers.
        """
        groups = self._state.optimizer.param_groups
        before = [{name: group[name] for name in ("lr", "fused", "foreach")} for group in groups]
        for rate, group in zip(self._rates, groups, strict=True):
            rate.fill_(group["lr"])
            group.update(lr=rate, fused=True, foreach=False)
        try:
            yield
        finally:
            for group, values in zip(groups, before, strict=True):
                group.update(values)
