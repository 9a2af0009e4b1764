"""The method's settings for each experiment (sections 4.1 and 4.2); how it is trained stands in training/recipe.py."""

from rr.config import ResRepConfig


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
