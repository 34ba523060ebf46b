"""Reading ahead gives the same records, those of a series in order, damage and errors; no thread is left."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.tsdb.stores import OPTIONS, T0, Store
from tests.tsdb.test_head_starts import append
from tsdb import walreader, walwindow
from tsdb.errors import UnknownVersionError
from tsdb.wal import SegmentRead, file_header, read_segment, record_bytes, segment_name
from tsdb.walreader import read_ahead
from tsdb.walrecords import SAMPLES_HEADER, PayloadCodec, RecordType
from tsdb.walwindow import ENDS_WINDOW, ReadRecord, WindowOrder, read_refs_and_times


def segment(tmp_path: Path) -> np.ndarray:
    store = Store(tmp_path, replace(OPTIONS, snapshot_on_close=False, start_timestamps=True))
    for n in range(30):
        rows = [(i, T0 + n * 15_000, float(n * i), 7 if n == 12 else 0) for i in range(20)]
        append(store, [*rows, (3, T0 - n, 1.0, 0)] if n % 5 == 4 else rows)
        if n % 7 == 3:
            # So many series to and fro that their refs are packed.
            order = np.arange(20, 220).reshape(2, 100).T.ravel().tolist()
            append(store, [(i, T0 + n * 15_000 + i, float(i), 0) for i in order])
    number = store.db.wal.segment
    store.db.close()
    return np.fromfile(tmp_path / "wal" / segment_name(number), dtype=np.uint8)


def flat(records: list[ReadRecord]) -> list[list[tuple]]:
    """Between what ends a window: samples record by record as they were written, others whole."""
    out: list[list[tuple]] = [[]]
    for record in records:
        if record.kind in ENDS_WINDOW:
            out.append([])
        if not record.samples:
            out[-1].append((int(record.kind), record.payload.tobytes()))
        for part in (part for bundle in record.samples for part in bundle.parts):
            refs, t_ms = read_refs_and_times([part])
            out[-1].append(
                (int(record.kind), tuple(refs.tolist()), tuple(t_ms.tolist()), part.coded.tobytes())
            )
        if record.kind in ENDS_WINDOW:
            out.append([])
    return out


def by_series(window: list[tuple]) -> dict[int, list[tuple]]:
    """The records of samples of each series, in their order."""
    found: dict[int, list[tuple]] = {}
    for record in window:
        for ref in set(record[1]) if len(record) > 2 else ():
            found.setdefault(ref, []).append(record)
    return found


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "wal-reader"]


def test_records_and_damage_are_those_of_reading(tmp_path, monkeypatch):
    data = segment(tmp_path)
    number = int.from_bytes(data[8:12].tobytes(), "little")
    rng = np.random.default_rng(4)
    codec = PayloadCodec()
    whole = [record for batch in read_segment(data, number, SegmentRead()) for record in batch]
    assert any(
        record.kind == RecordType.SAMPLES and SAMPLES_HEADER.unpack_from(record.payload.data, 0)[3]
        for record in whole
    )
    for turn in range(40):
        monkeypatch.setattr(walwindow, "WINDOW_LIMITS", [(1, 1), (50, 200), (1 << 20, 1 << 20)][turn % 3])
        monkeypatch.setattr(walreader, "RECORDS_AT_ONCE", [4096, 5, 1][turn // 3 % 3])
        damaged = data[: int(rng.integers(0, len(data) + 1))].copy() if turn % 2 else data.copy()
        if turn % 4 > 1 and len(damaged) > 16:
            damaged[int(rng.integers(16, len(damaged)))] ^= 1 << int(rng.integers(0, 8))
        plain, ahead = SegmentRead(), SegmentRead()
        batches = list(read_segment(damaged, number, plain))
        expected = [walreader._read(record, codec) for batch in batches for record in batch]
        found = list(read_ahead(damaged, number, ahead, WindowOrder(64)))
        windows, plain_windows = flat(found), flat(expected)
        assert list(map(sorted, windows)) == list(map(sorted, plain_windows))
        assert list(map(by_series, windows)) == list(map(by_series, plain_windows))
        assert ahead == plain
        for before, record in itertools.pairwise(found):
            # Start timestamps belong to exactly one record of samples.
            if before.kind == RecordType.STARTS:
                assert len(before.payload) == 8 * sum(part.count for part in record.samples[0].parts)
                assert len(record.samples) == len(record.samples[0].parts) == 1
    assert threads() == []


def test_a_record_that_does_not_decode_is_an_error_in_its_turn():
    good = record_bytes(RecordType.TRUNCATED, 0, 1, b"5")
    bad = record_bytes(RecordType.SAMPLES, 0, 2, b"\xff" * 20)
    short = record_bytes(RecordType.SAMPLES, 0, 3, b"\x01")
    data = np.frombuffer(b"".join([file_header(1), *good, *bad, *short]), dtype=np.uint8)
    found = list(read_ahead(data, 1, SegmentRead(), WindowOrder(64)))
    assert [record.error is None for record in found] == [True, False, False]


def test_a_newer_version_is_raised_and_an_abandoned_reader_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(walwindow, "WINDOW_LIMITS", (1, 1))
    data = segment(tmp_path)
    newer = data.copy()
    newer[4] = 9
    with pytest.raises(UnknownVersionError):
        list(read_ahead(newer, 1, SegmentRead(), WindowOrder(64)))
    records = read_ahead(data, int.from_bytes(data[8:12].tobytes(), "little"), SegmentRead(), WindowOrder(64))
    next(records)
    records.close()
    assert threads() == []
