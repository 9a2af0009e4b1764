"""Who signs is there; who doesn't is named, and one of those that are left says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch import distributed

from training import roll_call
from training.roll_call import ProcessLost, is_of_connection, lost

CUT = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer")
LATE = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 5000ms")

CLOSED = RuntimeError("Application timeout caused pair closure")


@pytest.fixture(autouse=True)
def in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is closed half a second after the last signature."""
    for name, seconds in (("PATIENCE", 0.5), ("LOOK", 0.01), ("AFTER_THE_FIRST", 0.0)):
        monkeypatch.setattr(roll_call, name, seconds)


def called(error: RuntimeError, there: list[int], size: int) -> dict[int, ProcessLost]:
    """What each of those that are there raises."""
    store = distributed.HashStore()
    with ThreadPoolExecutor(len(there)) as pool:
        calls = {rank: pool.submit(lost, error, store, rank, size) for rank in there}
    return {rank: call.result() for rank, call in calls.items()}


@pytest.mark.slow
def test_who_hangs_is_named_by_the_first_of_the_others() -> None:
    raised = called(LATE, [1, 3], size=4)
    assert {str(error) for error in raised.values()} == {"processes 0, 2 of 4 (from 0) are gone, or hang"}
    assert {rank: error.is_told_here for rank, error in raised.items()} == {1: True, 3: False}


@pytest.mark.slow
def test_who_is_gone_is_named_by_the_first() -> None:
    """The others leave as soon as it is there: who waits for one of them notices nothing before."""
    raised = called(CUT, [0, 1, 3], size=4)
    assert str(raised[0]) == "process 2 of 4 (from 0) is gone, or hangs"
    assert [rank for rank, error in raised.items() if error.is_told_here] == [0]


@pytest.mark.parametrize(("error", "words"), [(CUT, "lost their connection"), (LATE, "raise --process-timeout")])
def test_where_all_are_there_nobody_is_named(error: RuntimeError, words: str) -> None:
    raised = called(error, [0, 1], size=2)
    assert words in str(raised[0])
    assert "from 0" not in str(raised[0])


def stuck() -> None:
    threading.Event().wait()


def ended() -> None:
    raise RuntimeError("Connection was likely closed")


@pytest.mark.slow
@pytest.mark.parametrize("answer", [stuck, ended])
def test_where_the_list_is_out_of_reach_so_is_who_keeps_it(answer: Callable[[], None]) -> None:
    class Store:
        def set(self, *_: object) -> None:
            answer()

    error = lost(LATE, Store(), rank=1, size=3)
    assert "process 0 of 3 (from 0) is gone, or hangs, or the launcher does" in str(error)
    assert error.is_told_here


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (CUT, True),
        (LATE, True),
        (CLOSED, True),
        (RuntimeError("shapes differ"), False),
        (ValueError("gloo/transport"), False),
    ],
)
def test_other_errors_are_no_loss(error: Exception, is_one: bool) -> None:
    assert is_of_connection(error) is is_one
