"""The arms of the settings for short runs."""

from __future__ import annotations

import pytest

from benchmarks.studies import fast_settings, study
from rr.exp_resrep import parse_arguments
from tests.benchmarks.studies.helpers import NETWORK
from training import to_plain


@pytest.mark.slow
def test_each_arm_of_the_settings_changes_one_of_them() -> None:
    lr = ("--lr", str(fast_settings.LR))
    before = [*NETWORK, *study.COMMON, *fast_settings.ARMS["before"].options, *lr]
    ours = [to_plain(part) for part in parse_arguments(before)[:3]]
    for name, arm in fast_settings.ARMS.items():
        if arm.script == study.PRUNE:
            words = [*NETWORK, *study.COMMON, *arm.options, "--lr", str(arm.lr)]
            theirs = [to_plain(part) for part in parse_arguments(words)[:3]]
            changed = [key for a, b in zip(ours, theirs, strict=True) for key in a if a[key] != b[key]]
            assert len(changed) == (name != "before"), name
