"""Walks over the ring buffer against slow twins, damage, and the order of time."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernels.ring import DAMAGED, scan
from agent.probe.layout import ARGS, CWD, HEADER, PATH1, PROCESS_STRUCT, SLOTS
from agent.probe.ringbuffer import Batch, RingError, TimeOrder, decode, names_to_path
from tests.reference import ring as slow

BUSY, DISCARDED = 1 << 31, 1 << 30


def ring_record(payload: bytes, flags: int = 0) -> bytes:
    return struct.pack("<II", len(payload) | flags, 0) + payload + bytes(-len(payload) % 8)


def record(time_ns: int, fields: dict[int, bytes], pid: int = 7) -> bytes:
    tail = b"".join(
        struct.pack("<II", slot, len(data)) + data + bytes(-len(data) % 8) for slot, data in fields.items()
    )
    header = np.zeros(1, HEADER)
    header["time_ns"], header["pid"], header["size"] = time_ns, pid, HEADER.itemsize + len(tail)
    return header.tobytes() + tail


def batch_of(records: list[bytes]) -> Batch:
    starts = np.cumsum([0, *(len(item) for item in records[:-1])])
    return decode(np.frombuffer(b"".join(records), np.uint8), starts.astype(np.int64))


def test_layouts_have_the_sizes_of_the_c_structs() -> None:
    assert (HEADER.itemsize, PROCESS_STRUCT.itemsize, len(SLOTS)) == (128, 184, 16)


@given(
    st.lists(st.tuples(st.binary(max_size=30), st.sampled_from([0, 0, 0, BUSY, DISCARDED])), max_size=8),
    st.integers(0, 6),
    st.integers(0, 5),
)
def test_scan_agrees_with_its_slow_twin(items: list[tuple[bytes, int]], limit: int, cut: int) -> None:
    data = b"".join(ring_record(payload, flags) for payload, flags in items)
    data = data[: max(len(data) - cut * 8, 0)]
    starts, end = np.empty(limit, np.int64), np.zeros(1, np.int64)
    count = scan(np.frombuffer(data + bytes(1024), np.uint8), 1024, 0, len(data), starts, end)
    expected = slow.scan(data, limit)
    if expected is None:
        assert count == DAMAGED
        return
    payloads, consumed = expected
    assert (count, int(end[0])) == (len(payloads), consumed)
    assert all(data[at : at + len(p)] == p for at, p in zip(starts[:count].tolist(), payloads, strict=True))


def test_a_record_across_the_end_of_the_ring_is_read_in_one_piece() -> None:
    whole = ring_record(b"a" * 40) + ring_record(b"b" * 16)
    ring = bytearray(64)
    for at, byte in enumerate(whole[:64]):
        ring[(48 + at) % 64] = byte
    starts, end = np.empty(4, np.int64), np.zeros(1, np.int64)
    doubled = np.frombuffer(bytes(ring) * 2, np.uint8)
    assert scan(doubled, 64, 48, 48 + 48, starts, end) == 1
    assert doubled[48 + 8 : 48 + 48].tobytes() == b"a" * 40


@given(st.dictionaries(st.integers(0, 15), st.binary(max_size=40), max_size=5))
def test_fields_agree_with_the_slow_twin(fields: dict[int, bytes]) -> None:
    data = record(5, fields)
    batch = batch_of([data, record(6, {})])
    expected = slow.fields(data, len(SLOTS))
    assert expected == fields
    assert {slot: batch.field(0, slot) for slot in range(16) if batch.length[0, slot] >= 0} == fields
    assert (batch.length[1] == -1).all()


@given(st.integers(0, 60), st.integers(100, 159), st.integers(0, 255))
def test_damaged_records_are_refused_as_the_slow_twin_does(cut: int, at: int, value: int) -> None:
    data = bytearray(record(5, {PATH1: b"/etc/passwd", ARGS: b"cat\0"}))
    if at < len(data):
        data[at] = value
    shortened = bytes(data[: len(data) - cut])
    expected = slow.fields(shortened, len(SLOTS))
    if expected is None:
        with pytest.raises(RingError):
            batch_of([shortened])
    else:
        batch = batch_of([shortened])
        assert {slot: batch.field(0, slot) for slot in expected} == expected


def test_structs_of_a_batch_become_a_column_with_zeros_where_missing() -> None:
    struct_bytes = np.arange(PROCESS_STRUCT.itemsize, dtype=np.uint8).tobytes()
    batch = batch_of([record(1, {}), record(2, {13: struct_bytes}), record(3, {13: b"short"})])
    column = batch.structs(13, PROCESS_STRUCT)
    assert column[1].tobytes() == struct_bytes
    assert (column[0]["uid"], column[2]["uid"]) == (0, 0)


def test_records_come_out_in_order_of_time_once_the_window_is_past() -> None:
    order = TimeOrder(window_ns=10)
    first = order.push(batch_of([record(105, {CWD: b"b\0a\0"}), record(100, {})]), now_ns=112)
    assert first is not None
    assert first.header["time_ns"].tolist() == [100]
    second = order.push(batch_of([record(103, {PATH1: b"x"})]), now_ns=115)
    assert second is not None
    assert second.header["time_ns"].tolist() == [103, 105]
    assert (second.field(0, PATH1), second.field(1, CWD)) == (b"x", b"b\0a\0")
    assert order.push(None, now_ns=999) is None


def test_names_become_a_path_from_the_root() -> None:
    assert names_to_path(b"c\0b\0a\0") == "/a/b/c"
    assert names_to_path(b"") == "/"
