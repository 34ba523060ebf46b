"""A store in a folder with a clock that tests move, and shorthands to write and read it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from tsdb.columns import AppendResult, SampleColumns, WriteBatch
from tsdb.database import Database, open_database
from tsdb.fs import FileSystem
from tsdb.histogram import HistogramBatch
from tsdb.labels import Labels, Matcher, MatchType
from tsdb.limits import StorageOptions

T0 = 1_700_006_400_000
HOUR = 3600_000
OPTIONS = StorageOptions(background=False)


def name(i: int, **labels: str) -> Labels:
    return Labels.from_dict({"__name__": "m", "i": str(i), **labels})


def matcher(label: str, value: str) -> Matcher:
    return Matcher(MatchType.EQUAL, label, value)


@dataclass
class Store:
    """`samples` written with `add` are remembered in `expected`."""

    path: Path
    options: StorageOptions = OPTIONS
    fs: FileSystem | None = None
    now_s: float = T0 / 1000
    expected: dict[Labels, dict[int, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.open()

    def open(self, **changes: object) -> Database:
        """Open (again) what is in the folder."""
        self.options = replace(self.options, **changes)  # type: ignore[arg-type]
        self.registry = CollectorRegistry()
        self.db = open_database(self.path, self.options, self.registry, lambda: self.now_s, fs=self.fs)
        return self.db

    def metric(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(name, labels)
        assert value is not None, name
        return value

    def append(self, rows: list[tuple[Labels, int, float]], **options: bool) -> AppendResult:
        appender = self.db.appender()
        refs = appender.refs([row[0] for row in rows])
        t = np.array([row[1] for row in rows], dtype=np.int64)
        values = np.array([row[2] for row in rows], dtype=np.float64)
        self.now_s = max(self.now_s, float(t.max()) / 1000)
        return appender.append(WriteBatch(SampleColumns(refs, t, values)), **options)

    def add(self, rows: list[tuple[Labels, int, float]]) -> None:
        """Append good samples and wait until they are durable."""
        result = self.append(rows)
        assert result.stored_count == len(rows), result.messages
        result.durable.result(10)
        for labels, t, value in rows:
            self.expected.setdefault(labels, {})[t] = value

    def fill(self, series: int, start: int, count: int, step: int = 15_000) -> None:
        """`count` samples of `series` series from a time on."""
        for n in range(count):
            t = start + n * step
            self.add([(name(i), t, float(i * 1000 + n % 97)) for i in range(series)])

    def read(
        self, *matchers: Matcher, mint: int = -(2**62), maxt: int = 2**62
    ) -> dict[Labels, dict[int, float]]:
        """Everything stored, by label set."""
        querier = self.db.querier()
        selection = querier.select(matchers, mint, maxt)
        batch = selection.read(0, len(selection.labels))
        found = {}
        for row, labels in enumerate(selection.labels.rows()):
            lo, hi = int(batch.offsets[row]), int(batch.offsets[row + 1])
            times, values = batch.t_ms[lo:hi].tolist(), batch.values[lo:hi].tolist()
            assert times == sorted(set(times))
            if times:
                found[labels] = dict(zip(times, values, strict=True))
        querier.close()
        return found


def reopen(store: Store, **changes) -> None:
    store.db.close()
    store.open(**changes)


def crash(store: Store) -> None:
    """Go on with a copy of the directory as a killed process would leave it."""
    store.db.wal.flush()
    copy = store.path.with_name(store.path.name + "-copy")
    shutil.copytree(store.path, copy)
    store.db.close()
    store.path = copy
    store.open()


def histograms(times: list[int], is_float: bool = False) -> HistogramBatch:
    count = len(times)
    offsets = np.arange(count + 1, dtype=np.int64) * 2
    none = np.zeros(count + 1, dtype=np.int64)
    return HistogramBatch(
        row_offsets=np.zeros(1, dtype=np.int64),
        t_ms=np.array(times, dtype=np.int64),
        start_t_ms=None,
        schema=np.full(count, 3, dtype=np.int32),
        reset_hint=np.zeros(count, dtype=np.uint8),
        zero_threshold=np.full(count, 0.001),
        zero_count=np.arange(count, dtype=np.float64),
        count=np.arange(count) * 6.0,
        sum=np.arange(count) * 1.25,
        pos_offsets=offsets,
        pos_index=np.tile(np.array([-3, 5], dtype=np.int32), count),
        pos_count=np.arange(2 * count, dtype=np.float64),
        neg_offsets=none,
        neg_index=np.empty(0, dtype=np.int32),
        neg_count=np.empty(0),
        custom_offsets=none,
        custom_values=np.empty(0),
        is_float=np.full(count, is_float, dtype=np.uint8),
    )
