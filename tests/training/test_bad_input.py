"""A user's mistake is one line and exit code 2; a bug is still a traceback."""

from __future__ import annotations

import pytest

from training.bad_input import exit_on_bad_input


@pytest.mark.parametrize("error", [ValueError("no such\n  model"), FileNotFoundError("no such\nmodel")])
def test_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped, exit_on_bad_input():
        raise error
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: no such model\n"


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), exit_on_bad_input():
        raise KeyError("a bug")
