"""The method's settings for each network."""

import pytest

from base_model import build_model, model_info, model_names
from rr import ChannelGraph, ResRepConfig, ResRepPruner
from rr.recipes import FAST, fast_config, resrep_config
from tests.rr.networks import Networks

PAPER = {
    "penalty": 1e-4,
    "mask_interval": 200,
    "begin_granularity": 4,
    "num_at_least": 1,
    "threshold": 1e-5,
    "compactor_momentum": 0.99,
    "layers": "internal",
}


@pytest.mark.parametrize("arch", model_names())
def test_every_recipe_builds_with_the_papers_settings(arch: str) -> None:
    config = resrep_config(arch)
    assert isinstance(config, ResRepConfig)
    assert {name: getattr(config, name) for name in PAPER} == PAPER
    assert config.flops_target == (0.455 if model_info(arch).dataset == "imagenet" and arch != "smi1" else 0.471)


@pytest.mark.parametrize("arch", ["src20", "vc", "lenet5bn", "smi1_cifar"])
def test_targets_can_be_reached(arch: str) -> None:
    info = model_info(arch)
    model = build_model(arch)
    images = next(model.parameters()).new_zeros(1, info.in_channels, info.image_size, info.image_size)
    pruner = ResRepPruner(model, images, resrep_config(arch))
    assert len(pruner.compactors) > 0


def test_resnet50_prunes_the_first_two_convolutions_of_every_block(traced: Networks) -> None:
    graph: ChannelGraph = traced["sres50"][2]
    config = resrep_config("sres50")
    selected = graph.select(config.layers, config.include, config.exclude)
    assert selected.sum() == 7552
    hosts = [site.host for site in graph.sites.values() if selected[site.units].any()]
    assert len(hosts) == 32
    assert all(".block" in host and host.endswith(("conv1", "conv2")) for host in hosts)


def test_networks_from_anywhere_keep_half() -> None:
    for arch in ("torchvision/resnet50", "timm/resnet18", "sres.py:build", "folder/sres.py:build"):
        config = resrep_config(arch)
        assert {name: getattr(config, name) for name in PAPER} == PAPER
        assert (config.flops_target, config.exclude) == (0.5, ())


@pytest.mark.parametrize("arch", [*model_names(), "timm/resnet18", "mine.py:build"])
def test_a_short_run_of_every_network_builds_and_keeps_what_the_paper_keeps(arch: str) -> None:
    config, paper = fast_config(arch), resrep_config(arch)
    assert (config.flops_target, config.exclude, config.layers) == (paper.flops_target, paper.exclude, paper.layers)
    assert {name: getattr(config, name) for name in FAST} == FAST
    for total_steps in (10, 4692, 60_000):
        resolved = config.for_run(total_steps, lr=0.02)
        resolved.check_is_for_a_run()
        over = resolved.before_mask_iters + resolved.tighten_steps + resolved.mask_interval + resolved.death_steps
        assert over <= total_steps / 2  # all of it is done while the learning rate is high


def test_settings_of_a_short_run_can_be_changed() -> None:
    assert fast_config() == fast_config("timm/resnet18")
    config = fast_config("sres50", flops_target=0.3, mask_interval=5, exclude=())
    assert (config.flops_target, config.mask_interval, config.exclude, config.proximal) == (0.3, 5, (), True)
    assert fast_config("sres50", flops_target=0.3, narrow="no").exclude == ("conv1.*",)
