"""Real processes that time real steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from experiments.tuning import MachineSetting
from experiments.tuning.workers import TimingFailed, Trainee, Workers
from rr import fast_config
from training import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.long]
RECIPE = Recipe("src8", "digits", batch_size=32, epochs=100)
TRAINEE = Trainee(RECIPE, None, num_classes=10, in_channels=1, image_size=8, total_steps=1000)
PLAIN = MachineSetting(1, 1, amp=False, channels_last=True, compile=False)


def test_two_processes_with_compactors_and_a_teacher() -> None:
    config = fast_config(flops_target=0.5)
    trainee = replace(TRAINEE, config=config, recipe=replace(RECIPE, distill=0.5))
    workers = Workers(trainee, 2)
    try:
        for setting in (replace(PLAIN, processes=2), replace(PLAIN, processes=2, amp=True, channels_last=False)):
            found = workers.timed(setting, 120.0)
            assert found.first > 0
            assert found.later > 0
    finally:
        workers.close()


def test_a_network_that_fails_is_told_of(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def build():\n    raise KeyError('no such block')\n")
    with pytest.raises(TimingFailed, match="no such block"):
        Workers(replace(TRAINEE, recipe=replace(RECIPE, arch=f"{file}:build")), 1)
