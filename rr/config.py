"""The method's settings by topic, with the paper's values as defaults; ready ones for its rule and for a short run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from rr.errors import InputError
from rr.limits import LARGEST_PENALTY, LARGEST_THRESHOLD, MOST_CHANNELS, STEPS, is_penalty, is_steps, is_target
from rr.settings import Share, changed, check, check_types, setting, settings_of

Steps = int | Share  # optimiser steps, or a share of the run's

_CHANNELS, _PENALTY = f"{MOST_CHANNELS:,}", f"must be from 0 to {LARGEST_PENALTY:g}"
_SURPLUS = 1.001  # of a row's way to 0: slightly more, so that rounding leaves nothing of it for another step


@dataclass(frozen=True)
class TargetConfig:
    """What is to be left of the network. With both targets, both must hold."""

    flops: float | None = setting(
        "MACs to keep: up to 1 a share of the full network's, over 1 their number; none: no bound",
        0.471,
        name="flops_target",
    )
    params: float | None = setting("parameters to keep, in the same way", None, name="params_target")

    def __post_init__(self) -> None:
        check_types(self)
        check(
            self,
            {
                "flops must be more than 0 and finite": is_target(self.flops),
                "params must be more than 0 and finite": is_target(self.params),
                "params or flops_target must be given": (self.flops, self.params) != (None, None),
            },
        )


@dataclass(frozen=True)
class SelectionConfig:
    """Which layers are pruned, and which of their channels are masked when."""

    layers: str = setting(
        "'internal' layers, as in the paper, or 'all': residual streams too", "internal", choices=("internal", "all")
    )
    include: tuple[str, ...] = setting(
        "prune only layers whose names fit one of these patterns ('stage2.*'); tools/explain.py lists the names", ()
    )
    exclude: tuple[str, ...] = setting("keep all channels of the layers whose names fit one of these patterns", ())
    min_width: int = setting(
        "least width of a pruned layer; 0: blocks that a residual bypasses may go altogether, other layers keep 1",
        1,
        aliases=("num_at_least",),
    )
    min_width_share: float = setting(
        "least width of a pruned layer as a share of its own (0.25), as well; 0: none; with min_width 0 a block that "
        "may go altogether keeps that much, or goes",
        0.0,
    )
    width_multiple: int = setting("pruned layers get widths that are multiples of it (8, say), or stay whole", 1)
    score: str = setting(
        "what rows are ranked by for masking: their 'norm', as in the paper, or 'taylor': how much the loss would "
        "change without them, to first order",
        "norm",
        choices=("norm", "taylor"),
    )
    by_image: bool = setting(
        "score 'taylor': by the squares of each image's gradient, where those of a batch cancel each other; takes some "
        "memory and time",
        False,
    )
    per_mac: bool = setting(
        "rank rows by their score per MAC that goes with them ('taylor': its square, which is what adds up), so that "
        "layers with many MACs get narrow first",
        False,
    )
    warmup_steps: Steps = setting(
        "steps before the masks' first interval begins", 0, option=False, aliases=("before_mask_iters",)
    )
    mask_interval: Steps = setting("steps between mask updates, or a share of the run: 1%", 200)
    rows_per_update: int = setting("how many more rows may be masked at each update", 4, aliases=("begin_granularity",))
    tighten_steps: Steps = setting(
        "steps from the warm-up's end over which the target falls from the full network's cost to its value, most of "
        "it early, in place of --rows-per-update; or a share of the run: 10%; 0: it holds from the start",
        0,
    )

    def __post_init__(self) -> None:
        check_types(self)
        check(
            self,
            {
                "layers must be 'internal' or 'all'": self.layers in ("internal", "all"),
                "score must be 'norm' or 'taylor'": self.score in ("norm", "taylor"),
                f"warmup_steps {STEPS}": is_steps(self.warmup_steps),
                f"mask_interval {STEPS}, but not 0": is_steps(self.mask_interval) and self.mask_interval > 0,
                f"tighten_steps {STEPS}": is_steps(self.tighten_steps),
                "rows_per_update must be at least 1": self.rows_per_update >= 1,
                f"min_width must be from 0 to {_CHANNELS}": 0 <= self.min_width <= MOST_CHANNELS,
                "min_width_share must be from 0 to 1": 0 <= self.min_width_share <= 1,
                f"width_multiple must be from 1 to {_CHANNELS}": 1 <= self.width_multiple <= MOST_CHANNELS,
            },
        )
        if self.by_image and self.score != "taylor":
            raise InputError("by_image is for score 'taylor': give that too, or leave it out")
        if self.tighten_steps and self.rows_per_update != type(self).rows_per_update:
            raise InputError(
                "rows_per_update and tighten_steps exclude each other: the falling target decides how many rows are "
                "masked at an update; leave one of them out"
            )


@dataclass(frozen=True)
class DecayConfig:
    """How masked rows go to zero."""

    penalty: float = setting("lambda of the group-lasso penalty on compactor rows", 1e-4)
    masked_penalty: float | None = setting(
        "lambda of masked rows: the larger, the faster they die; none: that of the others", None
    )
    death_steps: Steps = setting(
        "in place of --masked-penalty: sets it so that (with --proximal) a masked row of norm 1 is dead after this "
        "many steps at the full learning rate; or a share of the run: 3%; 0: not used",
        0,
    )
    proximal: bool = setting(
        "shrink masked rows by a proximal step, which ends at exactly zero, in place of the penalty", False
    )
    momentum: float = setting("momentum of the compactors", 0.99, name="compactor_momentum")
    threshold: float = setting("rows with a smaller norm are dropped at conversion", 1e-5)

    def __post_init__(self) -> None:
        check_types(self)
        check(
            self,
            {
                f"penalty {_PENALTY}": is_penalty(self.penalty),
                f"masked_penalty {_PENALTY}, or none": self.masked_penalty is None or is_penalty(self.masked_penalty),
                f"death_steps {STEPS}": is_steps(self.death_steps),
                "momentum must be at least 0 and less than 1": 0 <= self.momentum < 1,
                f"threshold must be from 0 to {LARGEST_THRESHOLD}, far under the norms of living rows, which "
                "start at 1": 0 <= self.threshold <= LARGEST_THRESHOLD,
            },
        )
        if self.death_steps and self.masked_penalty is not None:
            raise InputError(
                "masked_penalty and death_steps exclude each other: the one follows from the other; leave one of them "
                "out (death_steps=0)"
            )


@dataclass(frozen=True)
class NarrowingConfig:
    """What leaves the network while it trains."""

    mode: str = setting(
        "take dead channels out of the network while it trains, so that training gets cheaper; 'rows': all but the "
        "outputs of the layers that made them, 'full': those as well, by folding the compactors when nothing more is "
        "to die",
        "no",
        name="narrow",
        choices=("no", "rows", "full"),
    )
    threshold: float = setting(
        "narrow: masked rows with a smaller norm are set to zero and taken out", 1e-3, name="narrow_threshold"
    )

    def __post_init__(self) -> None:
        check_types(self)
        check(
            self,
            {
                "mode must be 'no', 'rows' or 'full'": self.mode in ("no", "rows", "full"),
                "threshold must be at least 0 and less than 1, the norm of rows at the start": 0 <= self.threshold < 1,
            },
        )
        if self.mode == "no" and self.threshold != type(self).threshold:
            raise InputError("narrow_threshold is for narrowing: give narrow='rows' or 'full' too, or leave it out")


@dataclass(frozen=True)
class ResRepConfig:
    """What the method does, with the paper's values as defaults (section 4.1).

    Numbers of steps may be given as shares of a run, which `for_run` turns into steps; the pruner needs steps:

        config = fast_config(flops_target=0.5)
        pruner = ResRepPruner(model, example_inputs, config.for_run(epochs * len(loader), lr=0.02))

    Attributes:
        target: what is to be left.
        selection: which channels are masked when.
        decay: how they go to zero.
        narrowing: what leaves the network while it trains.
        compactors: 'dense' or 'diagonal'.

    Raises:
        InputError: for a value that can't be, and for settings that exclude each other.
    """

    target: TargetConfig = field(default_factory=TargetConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    decay: DecayConfig = field(default_factory=DecayConfig)
    narrowing: NarrowingConfig = field(default_factory=NarrowingConfig)
    compactors: str = setting(
        "'dense' ones, as in the paper, or 'diagonal': a factor for each channel, which costs less where a layer is "
        "wide, and with --narrow lets dead channels leave the layers that make them too",
        "dense",
        topic="compactors",
        choices=("dense", "diagonal"),
    )

    def __post_init__(self) -> None:
        check_types(self)
        check(self, {"compactors must be 'dense' or 'diagonal'": self.compactors in ("dense", "diagonal")})

    def with_settings(self, **settings: Any) -> ResRepConfig:
        """The same with other settings by their flat names, those of the command line: `flops_target`, `narrow`, ..."""
        return changed(self, **settings)

    def for_run(self, total_steps: int, lr: float) -> ResRepConfig:
        """The same for a run of this many optimiser steps: shares as whole numbers of steps, `masked_penalty` set.

        At learning rate `lr` a masked row moves by lr masked_penalty / (1 - momentum) a step
        (`CompactorRows.shrink_masked`); `death_steps` sets the penalty so that norm 1 takes no more steps than that.

        Args:
            total_steps: optimiser steps of the whole run.
            lr: the highest learning rate of the run, as given to `ResRepPruner.param_groups`; the lower it falls, the
                longer rows take.

        Raises:
            InputError: if there is no step, or the rate isn't above 0.
        """
        if not all(isinstance(number, (int, float)) for number in (total_steps, lr)):
            raise InputError(f"total_steps and lr must be numbers, not {total_steps!r} and {lr!r}")
        if total_steps < 1 or not 0 < lr < math.inf:
            raise InputError(f"a run has at least one step and a learning rate over 0, not {total_steps} and {lr}")
        shares = {s.name: s.value for s in settings_of(self) if isinstance(s.value, Share)}
        steps = {name: max(1, round(share.of(total_steps))) for name, share in shares.items()}
        death_steps = steps.pop("death_steps", self.decay.death_steps)
        if death_steps:
            per_step = _SURPLUS / death_steps
            steps |= {"masked_penalty": per_step * (1 - self.decay.momentum) / lr, "death_steps": 0}
        return changed(self, **steps)

    def check_is_for_a_run(self) -> None:
        """Check that no setting still depends on the run's length or learning rate.

        Raises:
            InputError: if one does: `for_run` is still to be called.
        """
        open_ones = [f"{s.name}={s.value:g}" for s in settings_of(self) if isinstance(s.value, Share)]
        if self.decay.death_steps and not isinstance(self.decay.death_steps, Share):
            open_ones.append(f"death_steps={self.decay.death_steps}")
        if open_ones:
            raise InputError(
                f"{', '.join(open_ones)}: what that is in steps, or as a penalty, depends on the run: give the pruner "
                "config.for_run(total_steps, lr) in place of config"
            )


FAST: dict[str, Any] = {
    "penalty": 0.0,
    "score": "taylor",
    "per_mac": True,
    "warmup_steps": Share(0.02),
    "mask_interval": Share(0.01),
    "tighten_steps": Share(0.1),
    "death_steps": Share(0.03),
    "proximal": True,
    "compactor_momentum": 0.9,
    "narrow": "full",
}


def paper_config(**settings: Any) -> ResRepConfig:
    """The paper's rule (section 4.1), for runs of hundreds of thousands of steps.

    Args:
        settings: what to change, by flat name: `flops_target`, `layers`, ...

    Raises:
        InputError: for an unknown name, or a value that can't be.
    """
    return ResRepConfig().with_settings(**settings)


def fast_config(**settings: Any) -> ResRepConfig:
    """Settings for runs of a few thousand steps, of any network; half of the MACs are kept.

    In a loop of your own:

        config = fast_config(flops_target=0.5).for_run(epochs * len(loader), lr=0.02)
        pruner = ResRepPruner(model, example_inputs, config)

    The paper's rule shrinks all rows for a few hundred thousand steps until their norms show which ones the task can do
    without. A short run has no time for that, so the loss decides what goes, and it goes at once:

    - penalty: none, so the rows that stay are never shrunk.
    - score, per_mac: the loss that each row would cost, to first order, in place of its norm, against the MACs that it
      frees: layers with many MACs (large images, first stages) get narrow, the others stay wide.
    - warmup_steps: that estimate (a mean over a hundred steps) settles first.
    - mask_interval, tighten_steps: many small cuts in place of one, most of them early, with the target met after a
      tenth of the run; the rest of the run trains the narrow network.
    - death_steps, proximal, compactor_momentum: a masked row goes to exactly 0 in that many steps, long before the
      learning rate has fallen, and the network can adapt to each cut; with a momentum of 0.99 it would drift on for
      longer.
    - narrow: what is dead leaves the network (`ResRepPruner.narrow`, to be called between steps), so most of the run
      has the cost of the narrow network.

    Args:
        settings: what to change, by flat name.

    Raises:
        InputError: for an unknown name, or a value that can't be.
    """
    return ResRepConfig().with_settings(**{"flops_target": 0.5, **FAST, **settings})


# What `cut_config` has in place of the paper's; nothing else of how and when channels are chosen applies there.
CUT: dict[str, Any] = {
    "penalty": 0.0,
    "warmup_steps": Share(1.0),
    "proximal": True,
    "compactor_momentum": 0.9,
    "narrow": "full",
    "compactors": "diagonal",
}


def cut_config(**settings: Any) -> ResRepConfig:
    """Settings for a run that begins with the cut (`rr.cut_at_once`); half of the MACs are kept.

    The masks are set then and never chosen anew (the warm-up is the whole run), no row is penalised, and compactors are
    diagonal, so that all that is dead leaves the network at once.

    Args:
        settings: what to change, by flat name.

    Raises:
        InputError: for an unknown name, or a value that can't be.
    """
    return ResRepConfig().with_settings(**{"flops_target": 0.5, **CUT, **settings})
