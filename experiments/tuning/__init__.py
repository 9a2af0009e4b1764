"""How a run uses this machine's CPU: chosen by timing some steps before it begins."""

from __future__ import annotations

from experiments.tuning.machine import in_words, is_worth_it, tuned, with_stored_choice
from experiments.tuning.search import Choice, Freedom, MachineSetting, StepTime, choose

__all__ = [
    "Choice",
    "Freedom",
    "MachineSetting",
    "StepTime",
    "choose",
    "in_words",
    "is_worth_it",
    "tuned",
    "with_stored_choice",
]
