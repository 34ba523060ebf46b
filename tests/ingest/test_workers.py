"""The receiver's threads: order, the end, and what a refusal after it looks like."""

from __future__ import annotations

import threading

import pytest

from ingest.remotewrite.workers import Workers


def test_one_thread_works_in_order_and_finishes_before_close_returns() -> None:
    workers = Workers(1, "work")
    done: list[int] = []
    for number in range(100):
        workers.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    workers.close()
    assert done == list(range(100))
    workers.close()
    with pytest.raises(RuntimeError, match="work: no more work is taken"):
        workers.submit(done.clear)


def test_calls_run_beside_each_other() -> None:
    workers = Workers(2, "work")
    meeting = threading.Barrier(2)
    names: list[str] = []

    def meet() -> None:
        meeting.wait(60)
        names.append(threading.current_thread().name)

    for _ in range(2):
        workers.submit(meet)
    workers.close()
    assert sorted(names) == ["work-0", "work-1"]


def test_nothing_is_started_for_nothing() -> None:
    before = threading.active_count()
    workers = Workers(2, "work")
    workers.close()
    assert threading.active_count() == before
