"""A store whose options are told while its log is being replayed already."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from tests.tsdb.stores import HOUR, OPTIONS, T0, Store, matcher, name
from tsdb import replay
from tsdb.columns import Exemplar, SampleColumns, WriteBatch
from tsdb.database import Database, open_database
from tsdb.labels import Labels
from tsdb.limits import Limits, StorageOptions

ALL = [[matcher("__name__", "m")]]
EXEMPLARS = 12
EARLY = replace(OPTIONS, out_of_order_window_ms=0, limits=Limits(exemplars=2))


def filled(tmp_path: Path, *, snapshot: bool) -> Store:
    store = Store(tmp_path, replace(OPTIONS, snapshot_on_close=snapshot))
    refs = store.db.appender().refs([name(0)])
    for n in range(EXEMPLARS):
        t = T0 + n * 15_000
        store.now_s = t / 1000
        exemplar = Exemplar(int(refs[0]), Labels.from_dict({"trace_id": str(n)}), 0.5, t)
        samples = SampleColumns(refs, np.array([t]), np.array([float(n)]))
        store.db.appender().append(WriteBatch(samples, exemplars=[exemplar])).durable.result(10)
        store.expected.setdefault(name(0), {})[t] = float(n)
    store.db.close()
    return store


def opened(store: Store, settled: object) -> Database:
    return open_database(store.path, EARLY, CollectorRegistry(), lambda: store.now_s, settled=settled)  # type: ignore[arg-type]


@pytest.mark.parametrize("held", [0, 1 << 24])
@pytest.mark.parametrize("snapshot", [False, True])
def test_the_options_that_are_told_last_count(tmp_path, monkeypatch, snapshot, held):
    monkeypatch.setattr(replay, "EXEMPLAR_BYTES_HELD", held)
    store = filled(tmp_path, snapshot=snapshot)
    asked, told = threading.Event(), threading.Event()

    def settled() -> StorageOptions:
        asked.set()
        assert told.wait(30)
        return replace(OPTIONS, out_of_order_window_ms=HOUR, limits=Limits(exemplars=10))

    found: list[Database] = []
    thread = threading.Thread(target=lambda: found.append(opened(store, settled)))
    thread.start()
    assert asked.wait(30)
    assert not found
    told.set()
    thread.join(30)
    store.db = found[0]
    assert store.read() == store.expected
    (series,) = store.db.exemplars(ALL, -(2**62), 2**62)
    # The early options would have kept two, the first of the log being gone before the others are known.
    kept = [dict(each.labels.pairs)["trace_id"] for each in series.exemplars]
    assert kept == [str(n) for n in range(EXEMPLARS - 10, EXEMPLARS)]
    # A late sample is taken: the early options have no window.
    store.add([(name(0), T0 - 60_000, 7.0)])
    assert store.read() == store.expected
    store.db.close()


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_store_that_gets_no_options_is_left_as_it_was(tmp_path, snapshot):
    store = filled(tmp_path, snapshot=snapshot)
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def settled() -> StorageOptions:
        raise ValueError("the configuration is wrong")

    with pytest.raises(ValueError, match="configuration is wrong"):
        opened(store, settled)
    after = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before
    store.open(snapshot_on_close=True)
    assert store.read() == store.expected
    assert store.db.metrics.clean_start._value.get() == float(snapshot)
    store.db.close()
