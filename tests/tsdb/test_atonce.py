"""Selects by a thread that must not wait: refused where they would, else the same as others."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tsdb.stores import HOUR, T0, Store, matcher, name
from tsdb.errors import NotAtOnceError
from tsdb.labels import Labels, Matcher, MatchType
from tsdb.select import SelectHints

AT_ONCE = SelectHints(at_once=100)
MINUTE = 60_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "data")
    yield opened
    opened.db.close()


def samples(
    store: Store, matchers: list[Matcher], mint: int, maxt: int, hints: SelectHints = AT_ONCE
) -> dict[Labels, dict[int, float]]:
    querier = store.db.querier()
    selection = querier.select(matchers, mint, maxt, hints)
    batch = selection.read(0, len(selection.labels))
    querier.close()
    return {
        labels: dict(zip(batch.t_ms[lo:hi].tolist(), batch.values[lo:hi].tolist(), strict=True))
        for labels, lo, hi in zip(
            selection.labels.rows(), batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True
        )
        if lo < hi
    }


def test_new_late_and_deleted_samples_are_seen_as_by_others(store: Store) -> None:
    every = [matcher("__name__", "m")]
    store.fill(3, T0, 30, step=MINUTE)
    steps: list[Callable[[], object]] = [
        lambda: store.add([(name(0), T0 + HOUR, 1.0), (name(9), T0 + HOUR, 2.0)]),
        lambda: store.add([(name(1), T0 + 5 * MINUTE + 1, 3.0)]),
        lambda: store.db.delete_series([[matcher("i", "0")]], T0, T0 + 10 * MINUTE),
    ]
    for change in steps:
        before = samples(store, every, T0, T0 + HOUR)
        change()
        after = samples(store, every, T0, T0 + HOUR)
        assert after != before
        assert after == samples(store, every, T0, T0 + HOUR, SelectHints())


def test_a_block_of_the_time_is_not_read_by_the_first(store: Store) -> None:
    store.fill(2, T0, 7 * 60, step=MINUTE)
    store.db.maintenance.run()
    first = store.db.head.min_time
    assert samples(store, [matcher("i", "1")], first, first + HOUR)
    with pytest.raises(NotAtOnceError, match="block"):
        samples(store, [matcher("i", "1")], first - MINUTE, first + HOUR)


def test_more_series_than_allowed_are_refused(store: Store) -> None:
    store.fill(5, T0, 2)
    every = [matcher("__name__", "m")]
    assert len(samples(store, every, T0, T0 + HOUR, SelectHints(at_once=5))) == 5
    with pytest.raises(NotAtOnceError, match="5 series are more than 4"):
        samples(store, every, T0, T0 + HOUR, SelectHints(at_once=4))


@pytest.mark.parametrize("which", ["head", "postings"])
def test_a_lock_that_is_taken_is_not_waited_for(store: Store, which: str) -> None:
    store.fill(1, T0, 2)
    lock = store.db.head.lock if which == "head" else store.db.head.postings.lock
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(10)
        with pytest.raises(NotAtOnceError):
            samples(store, [matcher("i", "0")], T0, T0 + HOUR)
    finally:
        done.set()
        holder.join()
    assert samples(store, [matcher("i", "0")], T0, T0 + HOUR)


def test_an_expression_is_matched_elsewhere_first(store: Store) -> None:
    store.fill(3, T0, 2)
    expression = [Matcher(MatchType.REGEXP, "i", "[01]+")]
    with pytest.raises(NotAtOnceError, match="regular expression"):
        samples(store, expression, T0, T0 + HOUR)
    assert len(samples(store, expression, T0, T0 + HOUR, SelectHints())) == 2
    assert len(samples(store, expression, T0, T0 + HOUR)) == 2
    store.add([(name(11), T0 + MINUTE, 1.0)])
    with pytest.raises(NotAtOnceError, match="regular expression"):
        samples(store, expression, T0, T0 + HOUR)
    assert len(samples(store, [Matcher(MatchType.REGEXP, "i", "0|1")], T0, T0 + HOUR)) == 2


def test_chunks_in_files_are_not_read(store: Store) -> None:
    store.fill(2, T0, 2)
    log = store.db.head.chunk_log
    log.rotate()
    assert log.spill(store.db.fs, store.path, 0) == 1
    with pytest.raises(NotAtOnceError, match="files"):
        samples(store, [matcher("i", "0")], T0, T0 + HOUR)
    assert np.isfinite(list(samples(store, [], T0, T0 + HOUR, SelectHints())[name(0)].values())).all()


def labels_at_once(store: Store, selectors: list[list[Matcher]], rows_max: int = 100) -> list[Any]:
    """Series, label names and values as a thread is told that must not wait; the same by the usual way."""
    found: list[Any] = []
    for at_once in (True, False):
        querier = store.db.querier()
        with querier.labels_at_once(selectors, rows_max) if at_once else contextlib.nullcontext():
            found.append(sorted(map(str, querier.series(selectors, T0, T0 + 9 * HOUR).rows())))
            if not selectors:
                found.append(querier.label_names(selectors, T0, T0 + 9 * HOUR))
                found.append(querier.label_values("i", selectors, T0, T0 + 9 * HOUR))
        querier.close()
    half = len(found) // 2
    assert found[:half] == found[half:]
    return found[:half]


def test_labels_of_head_and_blocks_are_those_of_others(store: Store) -> None:
    store.fill(3, T0, 7 * 60, step=MINUTE)
    store.db.maintenance.run()
    assert store.db.head.min_time > T0
    store.add([(name(7), store.db.head.max_time, 1.0)])
    with pytest.raises(NotAtOnceError, match="what matches in a block"):
        labels_at_once(store, [[matcher("i", "1")]])
    with pytest.raises(NotAtOnceError, match="what matches in a block"):
        labels_at_once(store, [])
    querier = store.db.querier()
    for selectors in ([], [[matcher("i", "1")], [matcher("i", "7")]]):
        querier.series(selectors, T0, T0 + 9 * HOUR)
    assert labels_at_once(store, [])[2] == ["0", "1", "2", "7"]
    assert len(labels_at_once(store, [[matcher("i", "1")], [matcher("i", "7")]])[0]) == 2
    with pytest.raises(NotAtOnceError, match="4 series are more than 2"):
        labels_at_once(store, [], rows_max=2)
    with querier.labels_at_once([], 9), pytest.raises(NotAtOnceError, match="remember"):
        querier.label_names([[matcher("i", "1")]], T0, T0 + 9 * HOUR)


@pytest.mark.parametrize("which", ["head", "postings"])
def test_labels_do_not_wait_for_a_lock(store: Store, which: str) -> None:
    store.fill(1, T0, 2)
    lock = store.db.head.lock if which == "head" else store.db.head.postings.lock
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(10)
        with pytest.raises(NotAtOnceError):
            labels_at_once(store, [])
    finally:
        done.set()
        holder.join()
    assert labels_at_once(store, [])[1] == ["__name__", "i"]
