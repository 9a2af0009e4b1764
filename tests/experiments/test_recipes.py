"""The method's settings for each network."""

import pytest

from base_model import build_model, model_info, model_names
from experiments.recipes import of_this_version, resrep_config
from rr import InputError, ResRepPruner, fast_config, paper_config
from rr.graph import ChannelGraph
from rr.settings import flat
from tests.rr.networks import Networks

FREE = ("flops_target", "exclude")  # what differs from network to network


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("arch", [*model_names(), "timm/resnet18", "mine.py:build", "folder/sres.py:build"])
def test_networks_differ_in_what_they_keep_alone(arch: str, fast: bool) -> None:
    found, ready = flat(resrep_config(arch, fast=fast)), flat((fast_config if fast else paper_config)())
    assert {name for name, value in found.items() if value != ready[name]} <= set(FREE)
    if "/" in arch or ":" in arch:
        expected = 0.5, []
    elif arch.startswith("sres"):
        expected = 0.455, ["conv1.*"]
    else:
        expected = 0.471, []
    assert tuple(found[name] for name in FREE) == expected


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
    selected = graph.select(config.selection.layers, config.selection.include, config.selection.exclude)
    assert selected.sum() == 7552
    hosts = [site.host for site in graph.sites.values() if selected[site.units].any()]
    assert len(hosts) == 32
    assert all(".block" in host and host.endswith(("conv1", "conv2")) for host in hosts)


@pytest.mark.parametrize("total_steps", [10, 4692, 60_000])
def test_a_short_run_is_over_with_pruning_while_the_learning_rate_is_high(total_steps: int) -> None:
    resolved = resrep_config("src56", fast=True).for_run(total_steps, lr=0.02)
    resolved.check_is_for_a_run()
    selection, death_steps = resolved.selection, max(1, round(0.03 * total_steps))
    over = selection.warmup_steps + selection.tighten_steps + selection.mask_interval + death_steps
    assert over <= total_steps / 2


OLDER = {"num_at_least": 1, "before_mask_iters": 94, "begin_granularity": 4, "mask_interval": 47, "tighten_steps": 469}
OLDER |= {"death_steps": 141, "masked_penalty": 0.0355, "compactor_lr_factor": 1.0, "fold_share": 1.0, "narrow": "full"}


def test_the_settings_of_an_older_run_are_those_of_this_version() -> None:
    found = of_this_version({**OLDER, "arch": "src20"})
    assert found.pop("arch") == "src20"
    ours = fast_config(warmup_steps=94, mask_interval=47, tighten_steps=469, death_steps=0, masked_penalty=0.0355)
    assert found == {name: flat(ours)[name] for name in found}
    assert len(found) == len(OLDER) - 2


def test_an_older_run_without_narrowing_had_a_share_that_said_nothing() -> None:
    found = of_this_version({**OLDER, "fold_share": 0.25, "narrow": "no"})
    assert "fold_share" not in found


@pytest.mark.parametrize("gone", [{"fold_share": 0.25}, {"compactor_lr_factor": 5.0}], ids=str)
def test_an_older_run_with_a_setting_that_is_gone_is_refused(gone: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(gone))):
        of_this_version({**OLDER, **gone})
