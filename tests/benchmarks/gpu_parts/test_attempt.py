"""What fails in a measurement is a result, and stops no other one."""

from __future__ import annotations

import pytest

from benchmarks.gpu_parts.attempt import attempted


def test_an_error_is_a_figure_and_its_traceback_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> dict:
        raise RuntimeError("no kernel image\nand more")

    assert attempted(fails) == {"failed": "RuntimeError: no kernel image"}
    assert "in fails" in capsys.readouterr().err
    assert attempted(lambda: {"ms": 1.0}) == {"ms": 1.0}
