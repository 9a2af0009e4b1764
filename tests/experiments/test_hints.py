"""Commands that a run ends with: they can be typed as they stand."""

from pathlib import Path

import pytest

from experiments.hints import command, comparison
from experiments.recipes import base_recipe
from training import Recipe

SCRIPT = "rr/exp_resrep.py"


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        (base_recipe("src20"), "python rr/exp_resrep.py -a src20 --dataset cifar10"),
        (
            Recipe("m.py:build", "folder", data_dir="my set", image_size=48, hold_out=9),
            "python rr/exp_resrep.py -a m.py:build --dataset folder --data-dir 'my set' --image-size 48 --hold-out 9",
        ),
    ],
    ids=["ours", "one's own"],
)
def test_the_next_command_has_the_network_and_the_data(recipe: Recipe, line: str) -> None:
    assert command(SCRIPT, recipe) == line
    assert command(SCRIPT, recipe, "--weights", Path("a/finish.hdf5")) == f"{line} --weights a/finish.hdf5"


def test_a_file_of_ones_own_is_named_where_it_is_to_be_run() -> None:
    pruned, base = Path("a/finish_converted.hdf5"), "b/finish.hdf5"
    plain = "a/finish_converted.hdf5 --against b/finish.hdf5"
    assert comparison(base_recipe("src20"), pruned, base) == f"python tools/evaluate.py {plain}"
    own = comparison(Recipe("m.py:build", "digits"), pruned, base)
    assert own == f"python tools/evaluate.py -a m.py:build {plain}"
