"""Recipes by network: how each is trained, and the method's settings for it."""

import dataclasses

import pytest

from base_model import build_model, model_info, model_names
from experiments.recipes import base_recipe, fast_recipe, of_this_version, resrep_config, resrep_recipe
from rr import InputError, ResRepPruner, fast_config, paper_config
from rr.graph import ChannelGraph
from rr.settings import flat
from tests.rr.networks import Networks
from training.schedule import lr_factor

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


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["src20", "vc", "lenet5bn", pytest.param("smi1_cifar", marks=pytest.mark.long)])
def test_targets_can_be_reached(arch: str) -> None:
    info = model_info(arch)
    model = build_model(arch)
    images = next(model.parameters()).new_zeros(1, info.in_channels, info.image_size, info.image_size)
    pruner = ResRepPruner(model, images, resrep_config(arch))
    assert len(pruner.compactors) > 0


@pytest.mark.slow
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


# Training ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", model_names())
def test_every_network_has_both_recipes(arch: str) -> None:
    base, resrep = base_recipe(arch), resrep_recipe(arch)
    assert base.arch == resrep.arch == arch
    assert (base.output_dir, resrep.output_dir) == (f"{arch}_train", f"resrep_models/{arch}_train")
    assert (base.val_interval, resrep.val_interval, resrep.save_interval) == (5, 2, 5)


@pytest.mark.parametrize("arch", model_names())
def test_a_short_run_is_resreps_but_for_its_length_and_rates(arch: str) -> None:
    fast = fast_recipe(arch)
    assert (fast.lr, fast.schedule, fast.min_lr, fast.epochs) == (0.02, "cosine", 0.0, 12)
    assert fast.batch_size == (256 if fast.dataset == "imagenet" else 128)
    assert fast.weight_decay == (5e-4 if fast.dataset == "cifar10" else 1e-4)
    changed = {name: getattr(fast, name) for name in ("lr", "epochs", "batch_size", "weight_decay")}
    assert fast == dataclasses.replace(resrep_recipe(arch), **changed)


@pytest.mark.parametrize(("epochs", "lr"), [(1, 0.02), (12, 0.02), (18, 0.0338), (25, 0.05), (60, 0.05)])
def test_a_longer_fast_run_has_the_higher_rate(epochs: int, lr: float) -> None:
    fast = fast_recipe("src20", epochs=epochs)
    assert fast == dataclasses.replace(fast_recipe("src20"), epochs=epochs, lr=lr)


def test_recipes_hold_the_papers_settings() -> None:
    base = base_recipe("src56")
    assert (base.dataset, base.lr, base.epochs, base.batch_size) == ("cifar10", 0.1, 240, 64)
    assert (base.schedule, base.for_run().milestones, base.gamma) == ("step", (120, 180), 0.1)
    imagenet = base_recipe("sres50")
    assert (imagenet.epochs, imagenet.for_run().milestones) == (90, (30, 60, 80))
    for arch, epochs, batch_size in (("src56", 480, 64), ("sres50", 180, 256)):
        resrep = resrep_recipe(arch)
        assert (resrep.lr, resrep.schedule, resrep.min_lr) == (0.01, "cosine", 0.0)
        assert (resrep.epochs, resrep.batch_size, resrep.momentum) == (epochs, batch_size, 0.9)
        assert (resrep.weight_decay, resrep.bias_lr_factor, resrep.nesterov) == (1e-4, 2.0, False)


@pytest.mark.parametrize("arch", model_names())
@pytest.mark.parametrize("epochs", [1, 7, 1000])
def test_every_recipe_takes_any_number_of_epochs(arch: str, epochs: int) -> None:
    """Milestones are shares of the run."""
    recipe, steps_per_epoch = dataclasses.replace(base_recipe(arch), epochs=epochs), max(2, 100 // epochs)
    factor = lr_factor(recipe.for_run(), steps_per_epoch)
    falls = [factor(step) for step in range(steps_per_epoch * epochs)]
    assert falls == sorted(falls, reverse=True)
    if recipe.schedule == "step":
        assert len(set(falls)) == len(recipe.milestones) + 1
    for build in (resrep_recipe, fast_recipe):
        assert dataclasses.replace(build(arch), epochs=epochs).for_run().epochs == epochs


@pytest.mark.parametrize(
    ("arch", "folder"),
    [
        ("torchvision/mobilenet_v2", "torchvision-mobilenet_v2_train"),
        ("timm/resnet18.a1_in1k", "timm-resnet18.a1_in1k_train"),
        ("my_models.py:build", "my_models-build_train"),
        ("../some where/sres.py:build", "sres-build_train"),
    ],
)
def test_networks_from_anywhere_have_recipes(arch: str, folder: str) -> None:
    base, resrep = base_recipe(arch, "folder"), resrep_recipe(arch, "folder")
    assert (base.output_dir, resrep.output_dir) == (folder, f"resrep_models/{folder}")
    assert base.arch == resrep.arch == arch
    assert base.dataset == resrep.dataset == "folder"
    assert base.batch_size == resrep.batch_size == 128
    assert base_recipe(arch, "imagenet").batch_size == resrep_recipe(arch, "imagenet").batch_size == 256
    fast, fast_imagenet = fast_recipe(arch, "folder"), fast_recipe(arch, "imagenet")
    assert (fast.batch_size, fast.weight_decay, fast.output_dir) == (128, 1e-4, f"resrep_models/{folder}")
    assert (fast_imagenet.batch_size, fast_imagenet.weight_decay, fast_imagenet.epochs) == (256, 1e-4, 12)
    for recipe in (base_recipe, resrep_recipe, fast_recipe):
        with pytest.raises(ValueError, match="--dataset"):
            recipe(arch)


def test_the_data_changes_no_other_setting_of_our_own_networks() -> None:
    for recipe in (base_recipe, resrep_recipe, fast_recipe):
        assert recipe("src56", "folder") == dataclasses.replace(recipe("src56"), dataset="folder")
