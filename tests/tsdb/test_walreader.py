"""Reading ahead gives what reading gives: records, damage, errors at their place, no thread left."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.tsdb.stores import OPTIONS, T0, Store
from tests.tsdb.test_head_starts import append
from tsdb import walreader
from tsdb.errors import UnknownVersionError
from tsdb.wal import SegmentRead, file_header, read_segment, record_bytes, segment_name
from tsdb.walreader import ReadRecord, read_ahead
from tsdb.walrecords import PayloadCodec, RecordType


def segment(tmp_path: Path) -> np.ndarray:
    store = Store(tmp_path, replace(OPTIONS, snapshot_on_close=False, start_timestamps=True))
    for n in range(30):
        rows = [(i, T0 + n * 15_000, float(n * i), 7 if n == 12 else 0) for i in range(20)]
        append(store, [*rows, (3, T0 - n, 1.0, 0)] if n % 5 == 4 else rows)
    number = store.db.wal.segment
    store.db.close()
    return np.fromfile(tmp_path / "wal" / segment_name(number), dtype=np.uint8)


def flat(records: list[ReadRecord]) -> list[tuple]:
    """Samples record by record as they were written, other records whole."""
    out = []
    for record in records:
        if record.samples is None:
            out.append((record.kind, record.payload.tobytes()))
            continue
        samples, at, byte = record.samples, 0, 0
        for count, size in samples.parts.tolist():
            refs, t_ms = (column[at : at + count].tolist() for column in (samples.refs, samples.t_ms))
            out.append((record.kind, refs, t_ms, samples.coded[byte : byte + size].tobytes()))
            at, byte = at + count, byte + size
    return out


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "wal-reader"]


def test_records_and_damage_are_those_of_reading(tmp_path, monkeypatch):
    data = segment(tmp_path)
    number = int.from_bytes(data[8:12].tobytes(), "little")
    rng = np.random.default_rng(4)
    codec = PayloadCodec()
    for turn in range(40):
        monkeypatch.setattr(walreader, "AHEAD_BYTES", [1, 500, 1 << 20][turn % 3])
        damaged = data[: int(rng.integers(0, len(data) + 1))].copy() if turn % 2 else data.copy()
        if turn % 4 > 1 and len(damaged) > 16:
            damaged[int(rng.integers(16, len(damaged)))] ^= 1 << int(rng.integers(0, 8))
        plain, ahead = SegmentRead(), SegmentRead()
        batches = list(read_segment(damaged, number, plain))
        expected = [walreader._read(record, codec) for batch in batches for record in batch]
        found = list(read_ahead(damaged, number, ahead))
        assert flat(found) == flat(expected)
        assert ahead == plain
        for before, record in itertools.pairwise(found):
            # Start timestamps belong to exactly one record of samples.
            if before.kind == RecordType.STARTS:
                assert record.samples is not None
                assert len(before.payload) == 8 * len(record.samples.refs)
    assert threads() == []


def test_a_record_that_does_not_decode_is_an_error_in_its_turn():
    good = record_bytes(RecordType.TRUNCATED, 0, 1, b"5")
    bad = record_bytes(RecordType.SAMPLES, 0, 2, b"\xff" * 20)
    short = record_bytes(RecordType.SAMPLES, 0, 3, b"\x01")
    data = np.frombuffer(b"".join([file_header(1), *good, *bad, *short]), dtype=np.uint8)
    found = list(read_ahead(data, 1, SegmentRead()))
    assert [record.error is None for record in found] == [True, False, False]


def test_a_newer_version_is_raised_and_an_abandoned_reader_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(walreader, "AHEAD_BYTES", 1)
    data = segment(tmp_path)
    newer = data.copy()
    newer[4] = 9
    with pytest.raises(UnknownVersionError):
        list(read_ahead(newer, 1, SegmentRead()))
    records = read_ahead(data, int.from_bytes(data[8:12].tobytes(), "little"), SegmentRead())
    next(records)
    records.close()
    assert threads() == []
