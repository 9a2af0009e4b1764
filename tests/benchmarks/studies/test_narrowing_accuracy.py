"""The arms of narrowing in mid-run."""

from __future__ import annotations

from benchmarks.studies import narrowing_accuracy, study
from rr import Share, fast_config
from rr.exp_resrep import parse_arguments
from tests.benchmarks.studies.helpers import NETWORK


def test_the_arms_of_narrowing_differ_in_nothing_else() -> None:
    ours, found = fast_config(flops_target=0.47, per_mac=False, tighten_steps=Share(0.25)), {}
    for name, arm in narrowing_accuracy.ARMS.items():
        _, config, *_ = parse_arguments([*NETWORK, *study.COMMON, *arm.options])
        found[name] = (config.narrowing.mode, config.decay.proximal)
        assert config.with_settings(narrow="full", proximal=True) == ours
    assert found == {"no": ("no", True), "rows": ("rows", True), "full": ("full", True), "penalty": ("full", False)}
