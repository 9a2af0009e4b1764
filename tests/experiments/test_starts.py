"""Where runs begin: settings that go together, and that don't."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.starts import PruningStart
from rr import InputError, cut_config, fast_config

CUT = PruningStart(before_mask_epochs=None, start="refit")


def test_a_cut_goes_with_its_own_settings_and_any_target() -> None:
    settings: dict[str, Any] = {"flops_target": None, "params_target": 0.3, "layers": "all", "exclude": ("a.*",)}
    CUT.check_suits(cut_config(width_multiple=8, min_width=2, **settings))
    CUT.check_suits(cut_config().for_run(1000, lr=0.1))  # as a run's file has them
    PruningStart().check_suits(fast_config(min_width=0))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("score", "taylor"), ("per_mac", True), ("mask_interval", 10), ("rows_per_update", 8)),
        *(("tighten_steps", 100), ("penalty", 1e-4), ("masked_penalty", 0.1), ("death_steps", 10)),
        *(("proximal", False), ("compactor_momentum", 0.99), ("narrow", "rows"), ("narrow_threshold", 1e-4)),
        *(("compactors", "dense"), ("min_width", 0)),
    ],
)
def test_settings_of_a_gradual_cut_are_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^{setting} .*start='"):
        CUT.check_suits(cut_config(**{setting: value}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": "refit"}, "before_mask_epochs is for a gradual cut"),
        ({"start": "now"}, "choose from gradual, refit"),
        ({"refit_images": 0}, "refit_images is 0"),
        ({"refit_images": 100}, "give start='refit'"),
    ],
)
def test_wrong_starts_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PruningStart(**settings)
