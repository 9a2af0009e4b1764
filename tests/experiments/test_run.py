"""How a run begins."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from experiments.call import Call
from experiments.run import begun
from training import Recipe


@pytest.mark.parametrize("launcher", ["TORCHELASTIC", "SLURM", None])
def test_where_there_is_no_run_to_go_on_with_a_new_one_begins_with_a_warning(
    launcher: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was started again goes on by itself; it may have written nothing yet."""
    if launcher is not None:
        monkeypatch.setenv(f"{launcher}_RESTART_COUNT", "1")
    for folder, why in ((tmp_path / "none", "there is no folder"), (tmp_path, "has no run.json, latest.pth or finish")):
        caplog.clear()
        recipe = Recipe("src8", "digits", image_size=8, output_dir=str(folder), device="cpu")
        with caplog.at_level(logging.INFO), begun(recipe, call=Call(None if launcher else "continue")) as run:
            assert run.is_new
            assert run.conti_or_fs == "continue"
        assert (why in caplog.text and "a new one begins" in caplog.text) == (launcher is None)
