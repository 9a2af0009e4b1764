"""Files of torch.save: what comes back, and that nothing in them is executed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rr.weights import read_pth, save_pth


def test_pth_gives_back_what_was_saved(tmp_path: Path) -> None:
    payload = {"epoch": 3, "state": {"a": torch.arange(3.0)}, "losses": [0.5, None], "name": "src20"}
    save_pth(tmp_path / "new" / "a.pth", payload)
    read = read_pth(tmp_path / "new" / "a.pth")
    assert read.pop("state")["a"].tolist() == [0, 1, 2]
    assert read == {"epoch": 3, "losses": [0.5, None], "name": "src20"}


def test_pth_executes_nothing(tmp_path: Path) -> None:
    class Call:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"a": Call()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="plain values"):
        read_pth(tmp_path / "a.pth")
    assert not (tmp_path / "executed").exists()
