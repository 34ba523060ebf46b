"""What a thread that must not wait is given of blocks, and what it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tsdb.stores import HOUR, T0, Store, matcher, name
from tsdb import sharedread
from tsdb.errors import NotAtOnceError
from tsdb.select import SelectHints, Selection

AT_ONCE = SelectHints(at_once=10)
SPAN = T0 + 30_000, T0 + 4 * HOUR


def store_of_two_blocks(directory: Path) -> Store:
    store = Store(directory)
    store.fill(3, T0, 300, step=60_000)
    store.db.maintenance.cut_head(T0 + 2 * HOUR)
    store.db.maintenance.cut_head(T0 + 4 * HOUR)
    assert len(store.db.blocks()) == 2
    return store


def bits_of(selection: Selection) -> dict[object, tuple[list[int], list[int]]]:
    found = {}
    for row, labels in enumerate(selection.labels.rows()):
        batch = selection.read(row, row + 1)
        found[labels] = (batch.t_ms.tolist(), batch.values.view(np.uint64).tolist())
    return found


def test_blocks_are_read_at_once_after_somebody_has_waited_for_them(tmp_path: Path) -> None:
    store = store_of_two_blocks(tmp_path)
    with pytest.raises(NotAtOnceError, match="not joined"):
        store.db.querier().select((), *SPAN, AT_ONCE)
    want = bits_of(store.db.querier().select((), *SPAN))
    assert bits_of(store.db.querier().select((), *SPAN, AT_ONCE)) == want
    # Other times of the same series are no other work.
    narrow = T0 + HOUR, T0 + 3 * HOUR
    found = bits_of(store.db.querier().select((), *narrow, AT_ONCE))
    assert found == bits_of(store.db.querier().select((), *narrow))
    with pytest.raises(NotAtOnceError, match="2"):
        store.db.querier().select((), *SPAN, SelectHints(at_once=2))
    store.db.close()


def test_pages_that_are_no_longer_kept_are_refused(tmp_path: Path) -> None:
    store = store_of_two_blocks(tmp_path)
    want = bits_of(store.db.querier().select((), *SPAN))
    store.db.blocks()[0].block.columns.forget()
    with pytest.raises(NotAtOnceError, match="decompressed"):
        bits_of(store.db.querier().select((), *SPAN, AT_ONCE))
    assert bits_of(store.db.querier().select((), *SPAN)) == want
    assert bits_of(store.db.querier().select((), *SPAN, AT_ONCE)) == want
    store.db.close()


@pytest.mark.parametrize("limit", ["DECODED_AT_ONCE_MAX", "PAGES_AT_ONCE_MAX"])
def test_much_to_decode_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    store = store_of_two_blocks(tmp_path)
    bits_of(store.db.querier().select((), *SPAN))
    # One sample is wanted of each series, and whole runs have to be decoded for it.
    monkeypatch.setattr(sharedread, limit, 1)
    with pytest.raises(NotAtOnceError, match="samples of 2 pages"):
        store.db.querier().select((), T0 + 2 * HOUR - 60_000, T0 + 2 * HOUR, AT_ONCE)
    store.db.close()


def test_deleted_samples_are_left_to_threads_that_may_wait(tmp_path: Path) -> None:
    store = store_of_two_blocks(tmp_path)
    bits_of(store.db.querier().select((), *SPAN))
    store.db.delete_series([[matcher("i", "1")]], T0, T0 + HOUR)
    with pytest.raises(NotAtOnceError):
        store.db.querier().select((), *SPAN, AT_ONCE)
    t_ms, _ = bits_of(store.db.querier().select((), *SPAN))[name(1)]
    assert t_ms[0] > T0 + HOUR
    store.db.close()
