"""Two processes that share the images out, against one that has them all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.forked import run_ranks
from tests.rr.refit import ranks


@pytest.mark.slow
def test_two_processes_come_to_the_network_of_one(tmp_path: Path) -> None:
    done = run_ranks(2, "-m", ranks.__name__, tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2))
    whole = ranks.pruned(range(6))
    assert first["figures"] == second["figures"]
    assert first["figures"] == pytest.approx(ranks.figures(whole.refit_report), rel=1e-4)
    assert first["figures"][:2] == [32, 16]
    for name, value in whole.state_dict().items():
        assert torch.equal(first["state"][name], second["state"][name])
        torch.testing.assert_close(first["state"][name], value, rtol=1e-4, atol=1e-5)
