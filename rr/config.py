"""The method's settings, with the paper's values as defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ResRepConfig:
    """What the method does, with the paper's values as defaults (section 4.1). Invalid values raise ValueError."""

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
    before_mask_iters: int = field(default=0, metadata={"option": False})
    mask_interval: int = field(default=200, metadata={"help": "steps between mask updates"})
    begin_granularity: int = field(default=4, metadata={"help": "how many more rows may be forgotten at each update"})
    tighten_steps: int = field(
        default=0,
        metadata={
            "help": "steps from the first phase's end over which the target falls from the full network's cost to what "
            "it is (in place of --begin-granularity, most of it early); 0: it holds from the start",
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
        metadata={"help": "rank rows by their score per MAC that goes with them: dear layers get narrow first"},
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
            "before_mask_iters must be at least 0": self.before_mask_iters >= 0,
            "mask_interval must be at least 1": self.mask_interval >= 1,
            "begin_granularity must be at least 1": self.begin_granularity >= 1,
            "tighten_steps must be at least 0": self.tighten_steps >= 0,
            "num_at_least must be at least 0": self.num_at_least >= 0,
            "width_multiple must be at least 1": self.width_multiple >= 1,
            "threshold must be at least 0": self.threshold >= 0,
            "compactor_momentum must be at least 0 and less than 1": 0 <= self.compactor_momentum < 1,
            "compactor_lr_factor must be more than 0 and finite": 0 < self.compactor_lr_factor < math.inf,
            "layers must be 'internal' or 'all'": self.layers in ("internal", "all"),
            "score must be 'norm' or 'taylor'": self.score in ("norm", "taylor"),
            "narrow must be 'no', 'rows' or 'full'": self.narrow in ("no", "rows", "full"),
            "narrow_threshold must be at least 0": self.narrow_threshold >= 0,
            "fold_share must be in (0, 1]": 0 < self.fold_share <= 1,
        }
        for message, holds in checks.items():
            if not holds:
                name = message.split()[0]
                raise ValueError(f"{message}, not {getattr(self, name)!r}")


def _is_target(value: float | None) -> bool:
    return value is None or 0 < value < math.inf
