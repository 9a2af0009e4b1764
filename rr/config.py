"""The method's settings, with the paper's values as defaults, in steps or in shares of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

Steps = int | float  # a whole number of steps, or, under 1, a share of the run's

_STEPS = "must be a whole number of steps, or under 1 a share of the run"
_SHARES = ("death_steps", "before_mask_iters", "mask_interval", "tighten_steps")
_SURPLUS = 1.001  # of a row's way to 0, so that rounding leaves nothing of it for one step more


@dataclass(frozen=True)
class ResRepConfig:
    """What the method does, with the paper's values as defaults (section 4.1). Invalid values raise ValueError.

    Numbers of steps may be given as shares of a run, which `for_run` makes steps of; the pruner wants steps:

        config = ResRepConfig(flops_target=0.5, mask_interval=0.01, tighten_steps=0.1, proximal=True, death_steps=0.03)
        pruner = ResRepPruner(model, example_inputs, config.for_run(epochs * len(loader), lr=0.02))
    """

    flops_target: float | None = field(
        default=0.471,
        metadata={"help": "MACs to keep: up to 1 a share of the full network's, over 1 their number; none: no bound"},
    )
    params_target: float | None = field(
        default=None, metadata={"help": "parameters to keep, in the same way; with both targets, both must hold"}
    )
    penalty: float = field(default=1e-4, metadata={"help": "lambda of the group-lasso penalty on compactor rows"})
    masked_penalty: float | None = field(
        default=None,
        metadata={"help": "lambda of masked rows, which die the faster the more it is; none: that of the others"},
    )
    death_steps: Steps = field(
        default=0,
        metadata={
            "help": "sets --masked-penalty where that is none, so that (with --proximal) a masked row of norm 1 is "
            "dead after so many steps at the full learning rate; under 1 a share of the run; 0: not used",
        },
    )
    before_mask_iters: Steps = field(default=0, metadata={"option": False})
    mask_interval: Steps = field(
        default=200, metadata={"help": "steps between mask updates; under 1 a share of the run"}
    )
    begin_granularity: int = field(default=4, metadata={"help": "how many more rows may be forgotten at each update"})
    tighten_steps: Steps = field(
        default=0,
        metadata={
            "help": "steps from the first phase's end over which the target falls from the full network's cost to what "
            "it is (in place of --begin-granularity, most of it early); under 1 a share of the run; 0: it holds from "
            "the start",
        },
    )
    num_at_least: int = field(
        default=1,
        metadata={
            "help": "the least width that a pruned layer may get (rows that it keeps at least); 0: blocks past which a "
            "residual runs may go altogether, other layers keep 1",
            "flags": ("--min-width",),
        },
    )
    width_multiple: int = field(
        default=1,
        metadata={"help": "pruned layers get widths that are multiples of it (8, say), or stay whole"},
    )
    threshold: float = field(default=1e-5, metadata={"help": "rows with a smaller norm are dropped at conversion"})
    compactor_momentum: float = field(default=0.99, metadata={"help": "momentum of the compactors"})
    compactor_lr_factor: float = field(
        default=1.0, metadata={"help": "learning rate of the compactors, relative to the others'"}
    )
    layers: str = field(
        default="internal",
        metadata={
            "help": "'internal' layers, as in the paper, or 'all': residual streams too",
            "choices": ("internal", "all"),
        },
    )
    include: tuple[str, ...] = field(default=(), metadata={"help": "prune only layers that fit these name patterns"})
    exclude: tuple[str, ...] = field(default=(), metadata={"help": "do not prune layers that fit these name patterns"})
    compactors: str = field(
        default="dense",
        metadata={
            "help": "'dense' ones, as in the paper, or 'diagonal': a factor for each channel, which costs less "
            "where a layer is wide, and with --narrow lets dead channels leave the layers that make them too",
            "choices": ("dense", "diagonal"),
        },
    )
    score: str = field(
        default="norm",
        metadata={
            "help": "what rows are ranked by for forgetting: their 'norm', as in the paper, or 'taylor': what the loss "
            "would lose by them, to first order",
            "choices": ("norm", "taylor"),
        },
    )
    per_mac: bool = field(
        default=False,
        metadata={
            "help": "rank rows by their score per MAC that goes with them ('taylor': its square, which is what adds "
            "up), so that dear layers get narrow first"
        },
    )
    proximal: bool = field(
        default=False,
        metadata={"help": "shrink masked rows by a proximal step, which ends at exactly zero, in place of the penalty"},
    )
    narrow: str = field(
        default="no",
        metadata={
            "help": "take dead channels out of the network while it trains, which gets cheaper by that; 'rows': all "
            "but the outputs of the layers that made them, 'full': those as well, by folding compactors in mid-run",
            "choices": ("no", "rows", "full"),
        },
    )
    narrow_threshold: float = field(
        default=1e-3, metadata={"help": "narrow: masked rows with a smaller norm are set to zero and taken out"}
    )
    fold_share: float = field(
        default=0.25,
        metadata={
            "help": "narrow full: a layer is folded when so large a share of its outputs is dead, or, once nothing "
            "more is to die, when any are"
        },
    )

    def __post_init__(self) -> None:
        checks = {
            "flops_target must be more than 0 and finite": _is_target(self.flops_target),
            "params_target must be more than 0 and finite": _is_target(self.params_target),
            "params_target or flops_target must be given": (self.flops_target, self.params_target) != (None, None),
            "penalty must be at least 0": self.penalty >= 0,
            "masked_penalty must be at least 0, or none": self.masked_penalty is None or self.masked_penalty >= 0,
            f"death_steps {_STEPS}": _is_steps(self.death_steps),
            f"before_mask_iters {_STEPS}": _is_steps(self.before_mask_iters),
            f"mask_interval {_STEPS}, but not 0": _is_steps(self.mask_interval) and self.mask_interval > 0,
            "begin_granularity must be at least 1": self.begin_granularity >= 1,
            f"tighten_steps {_STEPS}": _is_steps(self.tighten_steps),
            "num_at_least must be at least 0": self.num_at_least >= 0,
            "width_multiple must be at least 1": self.width_multiple >= 1,
            "threshold must be at least 0": self.threshold >= 0,
            "compactor_momentum must be at least 0 and less than 1": 0 <= self.compactor_momentum < 1,
            "compactor_lr_factor must be more than 0 and finite": 0 < self.compactor_lr_factor < math.inf,
            "layers must be 'internal' or 'all'": self.layers in ("internal", "all"),
            "compactors must be 'dense' or 'diagonal'": self.compactors in ("dense", "diagonal"),
            "score must be 'norm' or 'taylor'": self.score in ("norm", "taylor"),
            "narrow must be 'no', 'rows' or 'full'": self.narrow in ("no", "rows", "full"),
            "narrow_threshold must be at least 0": self.narrow_threshold >= 0,
            "fold_share must be in (0, 1]": 0 < self.fold_share <= 1,
        }
        for message, holds in checks.items():
            if not holds:
                name = message.split()[0]
                raise ValueError(f"{message}, not {getattr(self, name)!r}")

    def for_run(self, total_steps: int, lr: float) -> ResRepConfig:
        """The same for a run of so many optimiser steps: all shares as whole numbers of steps, `masked_penalty` set.

        At learning rate `lr` a masked row moves by lr compactor_lr_factor masked_penalty / (1 - compactor_momentum) a
        step (`ResRepPruner.shrink_masked`); with `death_steps`, by so much that norm 1 takes no more steps than that.
        lr: the highest of the run, as `ResRepPruner.param_groups` gets it; the lower it falls, the longer rows take
        """
        if total_steps < 1 or not 0 < lr < math.inf:
            raise ValueError(f"a run has at least one step and a learning rate over 0, not {total_steps} and {lr}")
        steps: dict[str, Any] = {name: _in_steps(getattr(self, name), total_steps) for name in _SHARES}
        if steps["death_steps"] and self.masked_penalty is None:
            travel = _SURPLUS / steps["death_steps"]
            steps["masked_penalty"] = travel * (1 - self.compactor_momentum) / (lr * self.compactor_lr_factor)
        return replace(self, **steps)

    def check_is_for_a_run(self) -> None:
        """Raise ValueError where `for_run` has something to say that it hasn't yet."""
        open_ones = [f"{name}={getattr(self, name):g}" for name in _SHARES if 0 < getattr(self, name) < 1]
        if self.death_steps and self.masked_penalty is None and not open_ones:
            open_ones = [f"death_steps={self.death_steps}"]
        if open_ones:
            raise ValueError(
                f"{', '.join(open_ones)}: what that is in steps, or as a penalty, depends on the run: give the pruner "
                "config.for_run(total_steps, lr) in place of config"
            )


def _is_target(value: float | None) -> bool:
    return value is None or 0 < value < math.inf


def _is_steps(value: Steps) -> bool:
    return 0 <= value < 1 or (value >= 1 and float(value).is_integer())


def _in_steps(value: Steps, total_steps: int) -> int:
    """At least 1, but 0 of 0: that has a meaning of its own."""
    if value == 0 or value >= 1:
        return int(value)
    return max(1, round(value * total_steps))
