"""Command lines: what is read ahead of the rest and decides the defaults, and what `-c continue` takes from a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from base_model import model_names
from experiments.command_line import read_network
from rr import InputError, Share
from tests import scripts
from training import to_plain


def test_network_and_data_are_read_ahead_of_the_rest() -> None:
    assert read_network(["--lr", "1", "-a", "src56", "--unknown"]) == ("src56", None)
    assert read_network(["--dataset", "digits", "--arch", "timm/resnet18"]) == ("timm/resnet18", "digits")
    assert read_network(["--help"]) == (model_names()[0], None)
    for words, message in ((["-a", "three"], "no network is called 'three'"), (["--lr", "1"], "-a is required")):
        with pytest.raises(ValueError, match=message):
            read_network(words)


PRUNE, TRAIN = "rr/exp_resrep.py", "train_base_model.py"


def settings_of(script: str, *words: object) -> dict[str, Any]:
    """What a script makes of a command line, as one dict of plain values."""
    *parts, _ = scripts.load(script).parse_arguments([str(word) for word in words])
    return {name: value for part in parts for name, value in to_plain(part).items()}


def begin(folder: Path, script: str, *words: object, **resolved: object) -> dict[str, Any]:
    """A folder with the run.json of a run that was begun with these words."""
    settings = {**settings_of(script, *words, "--output-dir", folder), **resolved}
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"recipe": settings}))
    return settings


def test_a_run_goes_on_with_its_own_settings(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    words = ["-a", "src20", "--dataset", "digits", "--epochs", 2, "--workers", 3, "--warmup-epochs", 1, "--amp"]
    begun = begin(folder, TRAIN, *words, milestones=[1, 1.5])
    assert settings_of(TRAIN, "-a", "src20", "--output-dir", folder, "-c", "continue") == begun
    assert settings_of(TRAIN, "--output-dir", folder, "-c", "continue") == begun
    more = settings_of(TRAIN, "-a", "src20", "--output-dir", folder, "-c", "continue", "--lr", 0.3, "--no-amp")
    assert more == {**begun, "lr": 0.3, "amp": False}  # what is typed holds, and is compared with the run later
    assert settings_of(TRAIN, "-a", "src20", "--output-dir", folder)["epochs"] == 240


def test_a_pruning_run_goes_on_with_its_own_settings(tmp_path: Path) -> None:
    folder, name = tmp_path / "pruned", "torchvision/resnet18"
    resolved = {"warmup_steps": 3, "mask_interval": 2, "tighten_steps": 9, "death_steps": 0, "masked_penalty": 0.04}
    words = ["-a", name, "--dataset", "digits", "--weights", "w.pth", "--distill", 0.5, "--distill-until", "65%"]
    begun = begin(folder, PRUNE, *words, **resolved)
    bare = ["-a", name, "--output-dir", folder, "-c", "continue"]
    assert settings_of(PRUNE, *bare) == begun
    assert settings_of(PRUNE, *bare, "--death-steps", "3%") == {**begun, "death_steps": 0.03, "masked_penalty": None}
    recipe, *_ = scripts.load(PRUNE).parse_arguments([str(word) for word in bare])
    assert isinstance(recipe.distill_until, Share)


def test_what_was_typed_and_cant_be_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    begin(folder, TRAIN, "-a", "src20", milestones=[120, 180])
    with pytest.raises(InputError, match=r"another recipe \(--epochs: there 240, now 5\): leave these options out"):
        settings_of(TRAIN, "-a", "src20", "--output-dir", folder, "-c", "continue", "--epochs", 5)


def test_no_file_is_run_that_a_person_has_not_named(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    begin(folder, TRAIN, "-a", "mine.py:build", "--dataset", "digits")
    with pytest.raises(InputError, match=r"give -a mine\.py:build"):
        settings_of(TRAIN, "--output-dir", folder, "-c", "continue")
    assert settings_of(TRAIN, "-a", "mine.py:build", "--output-dir", folder, "-c", "continue")["dataset"] == "digits"


def test_with_nothing_to_go_on_with_the_defaults_hold(tmp_path: Path) -> None:
    words = ["-a", "src20", "--output-dir", tmp_path / "none"]
    assert settings_of(TRAIN, *words, "-c", "continue") == settings_of(TRAIN, *words)
