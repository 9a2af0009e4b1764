"""What the library says, as a command line has it."""

import pytest

from experiments.wording import in_options


@pytest.mark.parametrize(
    ("said", "typed"),
    [
        ("let more layers be pruned (layers='all').", "let more layers be pruned (--layers all)."),
        (
            "with every chosen layer at min_width = 1, 0.05 remain",
            "with every chosen layer at --min-width 1, 0.05 remain",
        ),
        ("flops_target 0.01 can't be reached", "--flops-target 0.01 can't be reached"),
        ("lr is 0: must be greater than 0", "--lr is 0: must be greater than 0"),
        ("none left: rr.explain(graph) says why", "none left: `python tools/explain.py -a src20` says why"),
        ("leave one of them out (death_steps=0)", "leave one of them out (--death-steps 0)"),
        ("give proximal=True or amp=False", "give --proximal or --no-amp"),
        ("base_weights is bad", "--weights is bad"),
        ("the layers and the score of an epoch: lr", "the layers and the score of an epoch: lr"),
        ("there is no file a/min_width.pth in output_dir/b", "there is no file a/min_width.pth in output_dir/b"),
    ],
)
def test_settings_are_named_as_they_are_typed(said: str, typed: str) -> None:
    assert in_options(["-a", "src20", "--lr", "0"])(said) == typed


def test_without_a_network_its_place_is_shown() -> None:
    assert in_options([])("rr.explain(graph)") == "`python tools/explain.py -a NAME`"
