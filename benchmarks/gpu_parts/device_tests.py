"""The tests that another device could fail, on that device."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.gpu_parts.setting import Figures, Setting

ROOT = Path(__file__).resolve().parents[2]
DEVICE, MARK = "RESREP_TEST_DEVICE", "device"  # what tests/conftest.py reads, and what it marks


def measure(setting: Setting) -> Figures:
    """How many of them pass, which fail, and the end of what pytest says then; a dry run takes a file of them.

    Raises:
        RuntimeError: if pytest can't run them.
    """
    chosen = files_with_device_tests()[:1] if setting.dry_run else files_with_device_tests()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", MARK, f"--junit-xml={report}"]
        done = subprocess.run(
            [*words, *chosen],
            cwd=ROOT,
            env={**os.environ, DEVICE: setting.device},
            capture_output=True,
            text=True,
        )
        if not report.exists():
            raise RuntimeError(f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
        figures = read_report(report)
    if figures["failures"] or done.returncode:
        figures["output"] = done.stdout[-6000:]
    return {**figures, "exit_status": done.returncode}


def files_with_device_tests() -> list[str]:
    """Those alone: others may need packages that a machine with a GPU lacks."""
    paths = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in paths if f"mark.{MARK}" in path.read_text(encoding="utf-8")]


def read_report(path: Path) -> Figures:
    """Passed, skipped and failed tests of pytest's JUnit report."""
    cases = list(ElementTree.parse(path).iter("testcase"))
    failures = {_name(case): _reason(case) for case in cases if _reason(case) is not None}
    skipped = [_name(case) for case in cases if case.find("skipped") is not None]
    return {"passed": len(cases) - len(failures) - len(skipped), "skipped": skipped, "failures": failures}


def _name(case: ElementTree.Element) -> str:
    return f"{case.get('classname')}::{case.get('name')}"


def _reason(case: ElementTree.Element) -> str | None:
    found = [part for kind in ("failure", "error") for part in case.findall(kind)]
    return None if not found else (found[0].get("message") or "")[:300]
