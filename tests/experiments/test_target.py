"""Whether a run reached its target, and the one piece of advice where it didn't."""

from __future__ import annotations

import re
from typing import Any

import pytest

from experiments.target import missed, missed_time
from rr import ResRepConfig, paper_config

MASKED = {"masked_macs_ratio": 0.4, "masked_params_ratio": 0.4}


def left(macs: int, parameters: int = 50, **more: float) -> dict[str, Any]:
    """A conversion's report, of a network with 1,000 MACs and 100 parameters."""
    return {"macs_before": 1000, "macs_after": macs, "parameters_before": 100, "parameters_after": parameters} | {
        **MASKED,
        **more,
    }


@pytest.mark.parametrize(
    ("settings", "found", "words"),
    [
        ({"flops_target": 0.5}, left(500), None),
        ({"flops_target": 500}, left(500), None),
        ({"flops_target": None, "params_target": 0.5}, left(1000), None),
        ({"flops_target": 0.5}, left(501), "50.1% of the MACs remain, 50.0% were asked for; rows .* raise --penalty$"),
        ({"flops_target": 500}, left(501), "501 of the MACs remain, 500 were asked for"),
        ({"flops_target": 0.5, "params_target": 0.4}, left(500), "50.0% of the parameters remain, 40.0% were"),
        (
            {"flops_target": 0.5, "masked_penalty": 0.1},
            left(600),
            r"lower --death-steps \(or raise --masked-penalty, if",
        ),
        ({"flops_target": 0.5}, left(900, masked_macs_ratio=0.8), "too few rows go: raise --rows-per-update$"),
        ({"flops_target": 0.5, "tighten_steps": 9}, left(900, masked_macs_ratio=0.8), "raise --epochs$"),
    ],
    ids=str,
)
def test_what_is_missed_and_what_to_do(settings: dict[str, Any], found: dict[str, Any], words: str | None) -> None:
    config: ResRepConfig = paper_config(**settings)
    told = missed(found, config)
    if words is None:
        assert told is None
    else:
        assert re.search(words, told), told
        cut = missed(found, config, max_steps=5)
        assert cut.endswith("leave --max-steps out, or raise it")


def test_more_time_than_was_asked_for_is_told_of_but_not_what_chance_may_be() -> None:
    assert missed_time(None) is None
    for median in (0.3, 0.5, 0.514):
        assert missed_time({"median": median, "asked": 0.5}) is None
    assert "takes 51.6% of the full one's time, 50.0% was asked for" in missed_time({"median": 0.516, "asked": 0.5})
