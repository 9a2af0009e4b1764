"""The arms of what closes the gap to the base trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.studies import gap, study
from benchmarks.studies.runs import Run
from rr.errors import InputError
from rr.exp_resrep import parse_arguments
from tests.benchmarks.studies.helpers import NETWORK, call
from training import to_plain

CHANGED = {
    "high-rate": {"lr", "warmup_epochs"},
    **{f"later-{share}": {"lr", "warmup_epochs", "tighten_steps"} for share in (20, 30, 40)},
    **{f"floor-{share}": {"min_width_share"} for share in (25, 30)},
    "floor-or-none": {"min_width", "min_width_share"},
    "multiples-8": {"width_multiple"},
    "streams": {"layers"},
    "by-image": {"by_image"},
    "smoothing": {"label_smoothing"},
    "cutout": {"cutout"},
    "average": {"average_last"},
    "distill": {"distill"},
    "distill-outputs": {"distill", "distill_until", "distill_outputs"},
    **{key: {"distill"} for key in ("distill-trained", "distill-average")},
    "distill-later": {"distill", "lr", "warmup_epochs", "tighten_steps"},
    "fast": set(),
}


@pytest.mark.slow
def test_each_arm_changes_what_its_name_says() -> None:
    def settings(name: str) -> dict[str, object]:
        arm = gap.ARMS[name]
        words = [*NETWORK, *study.COMMON, *arm.options, "--lr", str(arm.lr), "--epochs", "12"]
        return {key: value for part in parse_arguments(words)[:3] for key, value in to_plain(part).items()}

    fast = settings("fast")
    for name, changed in CHANGED.items():
        found = settings(name)
        assert {key for key in found if found[key] != fast[key]} == changed, name
    assert settings("refit")["start"] == "refit"
    bases = {"base", *(f"base-{name}" for name in gap.FOR_BOTH)}
    assert set(gap.ARMS) - set(CHANGED) == {"refit", *bases}


def test_a_change_that_a_base_can_have_is_set_against_a_base_that_has_it() -> None:
    for name, change in gap.FOR_BOTH.items():
        ours, base = gap.ARMS[name], gap.ARMS[f"base-{name}"]
        assert ours.options[-2:] == base.options[-2:] == change
        assert {(name, "fast"), (name, f"base-{name}"), (f"base-{name}", "base")} <= set(gap.RIVALS_OF_OURS)


def test_a_better_teacher_is_trained_before(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = []
    monkeypatch.setattr(gap, "run_study", lambda found, arguments: studies.append(found))
    gap.main([])

    def wanted(*arms: str) -> list[Run]:
        words = call(place, "--seeds", "1", "--epochs", "3", "--arms", *arms)
        return study.wanted_runs(studies[0], study.parse_arguments(studies[0], words))

    with pytest.raises(InputError, match=r"distill-trained-e3-lr0.02-s1 is taught by base-e3-lr0.02-s1.*--arms"):
        wanted("distill-trained", "base-average")
    taught, teacher, other = wanted("distill-average", "base-average", "fast")
    assert taught.after == teacher.folder
    assert taught.command[taught.command.index("--teacher") + 1] == str(teacher.folder / "finish.hdf5")
    assert (teacher.after, other.after) == (None, None)


def test_every_run_leaves_the_same_images_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = []
    monkeypatch.setattr(gap, "run_study", lambda found, arguments: studies.append(found))
    gap.main([])
    runs = study.wanted_runs(studies[0], study.parse_arguments(studies[0], call(place, "--seeds", "0")))
    assert [run.arm for run in runs] == list(gap.ARMS)
    for run in runs:
        assert run.command[run.command.index("--hold-out") + 1] == "5000"
