"""The method's settings by network, the paper's and those of short runs; how it is trained: training/recipe.py."""

from dataclasses import replace
from typing import Any

from rr.config import ResRepConfig

PAPER_NETWORKS = ("src56", "sres50")  # of its two experiments, sections 4.1 and 4.2

FAST: dict[str, Any] = {
    "penalty": 0.0,
    "score": "taylor",
    "per_mac": True,
    "before_mask_iters": 0.02,
    "mask_interval": 0.01,
    "tighten_steps": 0.1,
    "death_steps": 0.03,
    "proximal": True,
    "compactor_momentum": 0.9,
    "narrow": "full",
    "fold_share": 1.0,
}


def resrep_config(arch: str) -> ResRepConfig:
    """ResRep's settings for the network `arch`, the paper's where it has that network.

    ResNets for ImageNet keep 45.5% of the MACs and their stem whole ("the first two convs of every block" are pruned);
    all others of this project keep 47.1%, networks from anywhere (`timm/NAME`, `FILE.py:FUNCTION`) half.
    """
    if "/" in arch or ":" in arch:
        return ResRepConfig(flops_target=0.5)
    if arch.startswith("sres"):
        return ResRepConfig(flops_target=0.455, exclude=("conv1.*",))
    return ResRepConfig(flops_target=0.471)


def fast_config(arch: str | None = None, **changes: Any) -> ResRepConfig:
    """Settings for runs of some thousand steps, of any network: `FAST`, and what `resrep_config(arch)` is to keep.

    In a training loop of one's own (the steps of the whole run, and its highest learning rate):

        config = fast_config(flops_target=0.5).for_run(epochs * len(loader), lr=0.02)
        pruner = ResRepPruner(model, example_inputs, config)

    The paper's rule shrinks all rows for some hundred thousand steps until their norms tell which the task can do
    without. A short run has no time for that, so what is to go is asked of the loss, and goes at once:

    penalty: none, so the rows that stay are never shrunk
    score, per_mac: the loss that each row would cost, to first order, in place of its norm, against the MACs that it
        frees: where MACs are dear (large images, first stages) layers get narrow, elsewhere they stay wide
    before_mask_iters: that estimate (a mean over a hundred steps) settles first
    mask_interval, tighten_steps: many small cuts in place of one, most of them early, with the target met after a
        tenth of the run; in all that is left the narrow network is trained
    death_steps, proximal, compactor_momentum: a masked row goes to exactly 0 in so many steps, long before the learning
        rate has fallen, and the network can adapt to each cut; with a momentum of 0.99 it would drift on for longer
    narrow: what is dead leaves the network (`ResRepPruner.narrow`, to be called between steps), so most of the run has
        the cost of the narrow network; fold_share: compactors are folded once, when all is dead, since a fold while
        others still die disturbs the training

    arch: a name as `resrep_config` takes it; None: half of the MACs. changes: other settings, by field
    """
    config = ResRepConfig(flops_target=0.5) if arch is None else resrep_config(arch)
    return replace(config, **{**FAST, **changes})
