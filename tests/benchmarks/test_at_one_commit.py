"""What a result file holds is gone on with at its own commit alone."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from benchmarks.at_one_commit import held, made_with
from training import init_world


def test_a_file_of_another_commit_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    assert held(path, {"commit": "a"}, "rows") is None
    path.write_text(json.dumps({"commit": "a", "rows": [1, 2]}))
    assert held(path, {"commit": "a"}, "rows") == [1, 2]
    assert held(path, {"commit": "a+"}, "rows") is None


def test_the_versions_are_those_that_are_there() -> None:
    with init_world("cpu") as world:
        versions = made_with(world, ("torchvision",))["versions"]
    assert versions["torch"] == torch.__version__
    assert "torchvision" in versions
