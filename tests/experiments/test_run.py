"""How a run begins."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from data import SyntheticSize, load_data
from experiments.call import Call
from experiments.run import Run, begun
from training import Recipe, World


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


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("accumulate", [1, 3, 4])
@pytest.mark.parametrize("images", [2, 9, 22])
def test_the_fewest_images_at_a_time_are_those_of_the_smallest_piece(
    images: int, accumulate: int, processes: int
) -> None:
    data = load_data("synthetic", image_size=8, synthetic_size=SyntheticSize(train=images, val=1))
    recipe = Recipe("src8", "synthetic", batch_size=8, accumulate=accumulate)
    pieces = [
        len(piece)
        for rank in range(processes)
        for batch in data.train_batches(0, batch_size=8, seed=0, device="cpu", rank=rank, world_size=processes)
        for piece in batch.images.chunk(accumulate)
    ]
    run = Run(recipe, (), World(0, 0, processes, torch.device("cpu")), data)
    assert run.fewest_at_a_time == min(pieces)
