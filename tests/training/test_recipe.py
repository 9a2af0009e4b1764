"""Recipes: all shipped ones are valid and hold the paper's settings, wrong values and options are refused."""

import argparse
import dataclasses
import json
from dataclasses import dataclass, field

import pytest

from base_model import model_names
from experiments.command_line import read_network
from experiments.recipes import base_recipe, fast_recipe, resrep_recipe
from rr import Share
from training import Recipe, add_options, default_values, from_options, to_plain
from training.schedule import lr_factor


def parser_for(*recipes: object) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_options(parser, *recipes)
    return parser


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("accumulate", 0),
        ("accumulate", 65),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("schedule", "cosin"),
        ("warmup", "slow"),
        ("milestones", ()),
        ("milestones", (180, 120)),
        ("milestones", (120, 240)),
        ("milestones", (0, 120)),
        ("gamma", 0.0),
        ("min_lr", 0.2),
        ("min_lr", -0.1),
        ("warmup_epochs", 240),
        ("warmup_factor", 0.0),
        ("momentum", 1.0),
        ("weight_decay", -1e-4),
        ("label_smoothing", 1.0),
        ("distill", -0.1),
        ("distill", 1.1),
        ("distill", float("nan")),
        ("distill_until", 0.0),
        ("distill_until", 1.1),
        ("distill_until", 0.5),  # of no distillation
        ("temperature", 0.0),
        ("temperature", float("inf")),
        ("seed", -1),
        ("max_steps", -1),
        ("workers", -1),
        ("val_interval", 0),
        ("log_interval", 0),
        ("save_interval", -1),
        ("output_dir", ""),
    ],
)
def test_wrong_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(base_recipe("src56"), **{name: value})


def test_every_field_has_an_option() -> None:
    actions = {action.dest: action for action in parser_for(base_recipe("src56"))._actions}
    for item in dataclasses.fields(Recipe):
        assert "--" + item.name.replace("_", "-") in actions[item.name].option_strings
        assert actions[item.name].help.strip()


def test_without_options_the_recipe_stays() -> None:
    recipe = base_recipe("src56")
    assert from_options(parser_for(recipe).parse_args([]), recipe) == recipe


def test_options_replace_fields() -> None:
    recipe = base_recipe("src56")
    words = "--batch-size 128 --amp --no-channels-last --milestones 3 5 --lr 5e-2 --data-dir some --workers none"
    changed = from_options(parser_for(recipe).parse_args(words.split()), recipe)
    expected = {"batch_size": 128, "amp": True, "channels_last": False, "milestones": (3, 5), "lr": 0.05}
    assert changed == dataclasses.replace(recipe, **expected, data_dir="some", workers=None)


@pytest.mark.parametrize("words", [["--batch", "128"], ["--batch-size", "many"], ["--schedule", "cosin"], ["extra"]])
def test_unknown_options_and_values_exit_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parser_for(base_recipe("src56")).parse_args(words)
    assert stopped.value.code == 2


@dataclass(frozen=True)
class Numbers:
    steps: int | Share = 200


@pytest.mark.parametrize(
    ("text", "value"),
    [("200", 200), ("0.25", Share(0.25)), ("25%", Share(0.25)), ("0", 0), ("1", 1), ("100%", Share(1))],
)
def test_steps_or_a_share_of_the_run(text: str, value: float) -> None:
    parser = parser_for(Numbers())
    steps = from_options(parser.parse_args(["--steps", text]), Numbers()).steps
    assert (steps, type(steps)) == (value, type(value))
    assert parser.parse_args([]).steps == 200
    for wrong in ("many", "150%", "0.0", "-0.1"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--steps", wrong])


def test_default_values_are_those_of_the_classes() -> None:
    assert default_values(Numbers(3), Method(layers=("a",))) == {"steps": 200, "strength": 1e-4, "layers": None}
    recipe = default_values(base_recipe("src56"))
    assert "arch" not in recipe
    assert (recipe["milestones"], recipe["epochs"]) == ([], 240)


@dataclass(frozen=True)
class Method:
    strength: float = field(default=1e-4, metadata={"help": "100% of it"})
    layers: tuple[str, ...] | None = field(default=None, metadata={"option": False})


def test_two_dataclasses_share_a_command_line() -> None:
    recipe, method = base_recipe("src56"), Method(layers=("a",))
    parser = parser_for(recipe, method)
    options = parser.parse_args(["--strength", "0.5", "--epochs", "200"])
    assert from_options(options, method) == Method(0.5, ("a",))
    assert from_options(options, recipe) == dataclasses.replace(recipe, epochs=200)
    assert "100% of it" in parser.format_help()
    assert "--layers" not in parser.format_help()


def test_a_field_of_two_dataclasses_is_refused() -> None:
    with pytest.raises(ValueError, match="both have a field"):
        parser_for(base_recipe("src56"), base_recipe("src20"))


def test_plain_values_are_what_json_gives_back() -> None:
    plain = to_plain(base_recipe("src56").for_run())
    assert plain["milestones"] == [120, 180]
    assert plain == json.loads(json.dumps(plain))


@pytest.mark.parametrize("arch", model_names())
@pytest.mark.parametrize("epochs", [1, 7, 1000])
def test_every_recipe_takes_any_number_of_epochs(arch: str, epochs: int) -> None:
    """Milestones are shares of the run."""
    recipe = dataclasses.replace(base_recipe(arch), epochs=epochs)
    falls = [factor for factor in (lr_factor(recipe.for_run(), 100)(step) for step in range(100 * epochs))]
    assert falls == sorted(falls, reverse=True)
    if recipe.schedule == "step":
        assert len(set(falls)) == len(recipe.milestones) + 1
    for build in (resrep_recipe, fast_recipe):
        assert dataclasses.replace(build(arch), epochs=epochs).for_run().epochs == epochs


def test_network_and_data_are_read_ahead_of_the_rest() -> None:
    assert read_network(["--lr", "1", "-a", "src56", "--unknown"]) == ("src56", None)
    assert read_network(["--dataset", "digits", "--arch", "timm/resnet18"]) == ("timm/resnet18", "digits")
    assert read_network(["--help"]) == (model_names()[0], None)
    for words, message in ((["-a", "three"], "no network is called 'three'"), (["--lr", "1"], "-a is required")):
        with pytest.raises(ValueError, match=message):
            read_network(words)


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
