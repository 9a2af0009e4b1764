"""Whether a pruning run reached its target, and what to do where it didn't, in the command line's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rr import ResRepConfig
from rr.latency.search import is_slow


@dataclass(frozen=True)
class Goal:
    """A target, and what a run came to.

    Attributes:
        noun: what is counted.
        value: up to 1 a share of the full network's, over 1 a number.
        before, after: of the full and of the converted network.
        masked_ratio: share of the full network's that the masks ask for.
    """

    noun: str
    value: float
    before: int
    after: int
    masked_ratio: float

    @property
    def limit(self) -> float:
        """The most that may be left, as a number."""
        return self.value * self.before if self.value <= 1 else self.value

    def __str__(self) -> str:
        asked = f"{self.value:.1%}" if self.value <= 1 else f"{self.value:,.0f}"
        left = f"{self.after / self.before:.1%}" if self.value <= 1 else f"{self.after:,}"
        return f"{left} of the {self.noun} remain, {asked} were asked for"


def missed(conversion: Mapping[str, Any], config: ResRepConfig, max_steps: int = 0) -> str | None:
    """What to say where more is left than was asked for, with one piece of advice; None where the target is reached.

    Args:
        conversion: the conversion's report, as result.json has it.
        config: the settings, in the run's own steps.
        max_steps: after which the run ended, whatever its schedule; 0: it did not.
    """
    found = (
        ("MACs", config.target.flops, "macs_before", "macs_after", "masked_macs_ratio"),
        ("parameters", config.target.params, "parameters_before", "parameters_after", "masked_params_ratio"),
    )
    goals = [
        Goal(noun, value, *(conversion.get(key, 0) for key in keys))
        for noun, value, *keys in found
        if value is not None
    ]
    over = [goal for goal in goals if goal.after > goal.limit]
    if not over:
        return None
    are_masked = all(round(goal.masked_ratio * goal.before) <= goal.limit for goal in goals)
    why = "rows that are to go aren't dead yet, and stay, so that nothing is lost" if are_masked else "too few rows go"
    return f"the target isn't reached: {' and '.join(map(str, over))}; {why}: {_advice(config, are_masked, max_steps)}"


def missed_time(latency: Mapping[str, Any] | None) -> str | None:
    """What to say where the network takes more of the time than was asked for, and more than may be by chance.

    Args:
        latency: what result.json has of the time; None where there was no such target.
    """
    if latency is None or not is_slow(latency["median"], latency["asked"]):
        return None
    return (
        f"the target isn't reached: the network takes {latency['median']:.1%} of the full one's time, "
        f"{latency['asked']:.1%} was asked for: ask for less, or measure again on a quiet machine"
    )


def _advice(config: ResRepConfig, are_masked: bool, max_steps: int) -> str:
    if max_steps:
        return "leave --max-steps out, or raise it"
    if not are_masked:
        return "raise --epochs" if config.selection.tighten_steps else "raise --rows-per-update"
    if config.decay.masked_penalty is None:
        return "raise --penalty"
    return "lower --death-steps (or raise --masked-penalty, if that is what you gave)"
