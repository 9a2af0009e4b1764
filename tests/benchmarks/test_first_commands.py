"""The time of a newcomer's first commands, of a Makefile that has nothing to install."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.first_commands_table import first_commands_sentence
from rr.errors import InputError
from tests import scripts

first_commands = scripts.load("benchmarks/first_commands.py")

MAKEFILE = """
.venv/.installed:
	mkdir -p .venv && head -c 50000 /dev/zero > .venv/package && touch $@
demo: .venv/.installed
	test -f .venv/package && sleep 0.2
.venv/.installed-dev: .venv/.installed
	ln .venv/package .venv/the_same && head -c 30000 /dev/zero > .venv/more && touch $@
test test-fast: .venv/.installed-dev
"""


def checkout(folder: Path, makefile: str) -> Path:
    folder.mkdir()
    (folder / "Makefile").write_text(makefile)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "--quiet"], ["add", "Makefile"], [*who, "commit", "--quiet", "-m", "first"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


@pytest.mark.slow
def test_a_clone_is_set_up_and_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = checkout(tmp_path / "checkout", MAKEFILE)
    monkeypatch.setattr(first_commands, "ROOT", root)
    first_commands.main(["--folder", str(tmp_path / "clone"), "--output", str(tmp_path / "found.json")])
    assert not (root / ".venv").exists()
    found = json.loads((tmp_path / "found.json").read_text())
    sizes = {name: target["environment_bytes"] for name, target in found["targets"].items()}
    assert 50_000 <= sizes[".venv/.installed"] < 60_000  # whole blocks
    assert 80_000 <= sizes["test"] < 100_000  # the second name of a file is no second file
    assert found["targets"]["demo"]["seconds"] >= 0.2
    sentence = first_commands_sentence(found)
    assert found["hardware"]["cpu"] in sentence
    assert "0.0 GB" in sentence


def test_what_fails_is_named(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "checkout", "demo:\n\tfalse\n")
    with pytest.raises(InputError, match="make demo failed"):
        first_commands.made(folder, "demo")


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(200_000))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "large")
    assert first_commands.bytes_on_disk(tmp_path / "folder") < 10_000


def test_the_sentence_has_minutes_and_gigabytes() -> None:
    targets = {
        ".venv/.installed": {"seconds": 150.0, "environment_bytes": 5_840_000_000},
        "demo": {"seconds": 228.0, "environment_bytes": 5_840_000_000},
        ".venv/.installed-dev": {"seconds": 66.0, "environment_bytes": 6_500_000_000},
        "test-fast": {"seconds": 54.0, "environment_bytes": 6_500_000_000},
        "test": {"seconds": 285.0, "environment_bytes": 6_500_000_000},
    }
    results = {"targets": targets, "hardware": {"cpu": "Some CPU"}, "cores": 2, "versions": {"torch": "2.14.1"}}
    sentence = first_commands_sentence(results)
    for part in (
        "5.8 GB and 2.5 minutes",
        "`make demo` then 3.8",
        "need 1.1, `make test-fast` then 0.9, `make test` 4.8",
        "Some CPU, 2 cores",
    ):
        assert part in sentence
