"""Dataclasses as command lines: an option for each setting, defaults, and words that can't be."""

import argparse
import dataclasses
from dataclasses import dataclass, field

import pytest

from experiments.recipes import base_recipe
from experiments.starts import PruningStart
from rr import Share
from training import (
    OptionParser,
    Recipe,
    add_options,
    default_values,
    from_options,
    from_plain,
    option_names,
    to_plain,
    typed_names,
)


def parser_for(*recipes: object) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_options(parser, *recipes)
    return parser


def test_every_field_has_an_option_with_its_help() -> None:
    shown = "".join(parser_for(base_recipe("src56")).format_help().split())
    for item in dataclasses.fields(Recipe):
        assert "--" + item.name.replace("_", "-") in shown
        told = "".join(item.metadata["help"].split())
        assert len(told) > 3
        assert told in shown, item.name


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


def refusal(parser: OptionParser, words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(words.split())
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_an_option_and_its_opposite_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    parser = OptionParser()
    add_options(parser, base_recipe("src56"))
    for words in ("--amp --no-amp", "--no-amp --lr 1 --amp"):
        assert "--amp and --no-amp are opposites: give one of them" in refusal(parser, words, capsys)
    assert parser.parse_args(["--amp", "--amp", "--no-channels-last"]).amp


def test_an_option_that_took_a_file_for_a_value_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    parser = OptionParser()
    parser.add_argument("file")
    parser.add_argument("--names", nargs="*")
    parser.add_argument("--sizes", nargs="+", type=int)
    hint = "takes all values that follow it: put FILE first"
    assert f"(--names {hint})" in refusal(parser, "--sizes 1 --names a b.pth", capsys)
    assert f"(--sizes {hint})" in refusal(parser, "--sizes 1 b.pth", capsys)
    assert hint not in refusal(parser, "", capsys)
    assert parser.parse_args(["--names", "a", "--", "b.pth"]).file == "b.pth"


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


def test_plain_values_give_the_settings_back() -> None:
    recipe = dataclasses.replace(base_recipe("src56").for_run(), distill=0.5, distill_until=Share(0.65))
    again = from_plain({**to_plain(recipe), "unknown": 1}, base_recipe("src20"))
    assert again == recipe
    assert isinstance(again.distill_until, Share)
    assert from_plain({"lr": 0.3}, recipe) == dataclasses.replace(recipe, lr=0.3)


def test_what_is_typed_is_told_from_the_defaults() -> None:
    parser = parser_for(base_recipe("src56"))
    assert typed_names(parser, ["--lr", "0.1", "--no-amp", "-a", "src56"]) == {"lr", "amp", "arch"}
    assert typed_names(parser, []) == set()


def test_how_settings_are_typed() -> None:
    names = option_names(base_recipe("src56"), PruningStart(), Method())
    assert (names["batch_size"], names["arch"], names["base_weights"]) == ("--batch-size", "--arch", "--weights")
    assert "layers" not in names


def test_a_field_of_two_dataclasses_is_refused() -> None:
    with pytest.raises(ValueError, match="both have a field"):
        parser_for(base_recipe("src56"), base_recipe("src20"))
