"""The compactor layer, how it is put behind a layer of anyone's network, and what each step does with its rows."""

from rr.compactors.compactor import (
    CHILD,
    HOOK_KINDS,
    MASK_SUFFIX,
    WEIGHT_SUFFIX,
    Compactor,
    acts_before,
    compactors_bypassed,
    find_compactors,
    hooks_of_users,
    insert_compactors,
    own_hook,
    remove_compactors,
)
from rr.compactors.hooks import StepHooks, StepWatch, check_counted, check_loop, check_optimizer
from rr.compactors.rows import CompactorRows

__all__ = [
    "CHILD",
    "HOOK_KINDS",
    "MASK_SUFFIX",
    "WEIGHT_SUFFIX",
    "Compactor",
    "CompactorRows",
    "StepHooks",
    "StepWatch",
    "acts_before",
    "check_counted",
    "check_loop",
    "check_optimizer",
    "compactors_bypassed",
    "find_compactors",
    "hooks_of_users",
    "insert_compactors",
    "own_hook",
    "remove_compactors",
]
