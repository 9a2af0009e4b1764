"""What is decided before there are two hosts, and what is read when they are done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import two_hosts
from benchmarks.two_hosts import check_rights, ended, out_of, said
from rr.errors import InputError


@pytest.mark.parametrize(
    ("program", "user", "fix"), [(None, 0, "install iproute2"), ("/usr/sbin/ip", 1000, "with sudo; nothing has been")]
)
def test_without_the_means_it_says_so(
    program: str | None, user: int, fix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: program)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(InputError, match=fix):
        check_rights()
    with pytest.raises(SystemExit):
        two_hosts.main(["--output", str(tmp_path / "found.json")])
    assert not (tmp_path / "found.json").exists()


@pytest.mark.slow
def test_one_that_does_not_end_is_told_apart() -> None:
    words = ["pass", "raise SystemExit(3)", "import time; time.sleep(600)"]
    assert ended([subprocess.Popen([sys.executable, "-c", word]) for word in words], within=2) == [0, 3, None]


def test_a_last_line_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    out_of(tmp_path / "cut", 1).write_text(f"step 3\nerror: gone; goes on from {tmp_path / 'cut'}/latest.pth\n")
    assert said(tmp_path / "cut", 1) == "error: gone; goes on from RUN/latest.pth"
