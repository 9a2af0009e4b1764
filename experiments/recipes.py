"""The method's settings by network, the paper's and those of short runs; how it is trained: training/recipe.py."""

from typing import Any

from rr import InputError, ResRepConfig, fast_config, paper_config
from rr.settings import settings_of

PAPER_NETWORKS = ("src56", "sres50")  # of its two experiments, sections 4.1 and 4.2


def resrep_config(arch: str, *, fast: bool = False) -> ResRepConfig:
    """ResRep's settings for the network `arch`, the paper's where it has that network.

    ResNets for ImageNet keep 45.5% of the MACs and their stem whole ("the first two convs of every block" are pruned);
    all others of this project keep 47.1%, networks from anywhere (`timm/NAME`, `FILE.py:FUNCTION`) half.

    fast: those of a short run, of as many MACs
    """
    build = fast_config if fast else paper_config
    if "/" in arch or ":" in arch:
        return build(flops_target=0.5)
    if arch.startswith("sres"):
        return build(flops_target=0.455, exclude=("conv1.*",))
    return build(flops_target=0.471)


def of_this_version(stored: dict[str, Any]) -> dict[str, Any]:
    """The settings in an older run's run.json, as this version has them, so that the run can be gone on with.

    Raises:
        InputError: if it was run with a setting that is gone.
    """
    names = {alias: setting.name for setting in settings_of(ResRepConfig()) for alias in setting.aliases}
    found = {names.get(name, name): value for name, value in stored.items()}
    if found.get("masked_penalty") is not None and "death_steps" in found:
        found["death_steps"] = 0  # the penalty follows from it
    factor, share = found.pop("compactor_lr_factor", 1.0), found.pop("fold_share", 1.0)
    if factor != 1.0 or (share != 1.0 and found.get("narrow") == "full"):
        raise InputError(
            f"the run was begun with compactor_lr_factor {factor:g} and fold_share {share:g}, which can't be set any "
            "more: finish it with the version that began it, or start it again with '-c fs'"
        )
    return found
