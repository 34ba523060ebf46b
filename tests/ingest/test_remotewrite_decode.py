"""The decode kernels against their slow twins, on valid and damaged messages beside an unreadable page."""

from __future__ import annotations

import itertools
import math
import types
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.load import encode
from ingest.kernels import remotewrite, wire
from ingest.kernels.remotewrite import MISSING, ROW_FAST, ROW_SLOW
from ingest.remotewrite import v1, v2
from ingest.remotewrite.decoded import DecodeArrays, DecodedRequest
from ingest.remotewrite.labelspan import plain_labels, read_labels, validated
from ingest.remotewrite.wire import MalformedMessageError
from tests.ingest.guardpage import GuardedBuffer
from tests.ingest.remotewrite_messages import damaged, requests
from tests.reference import remotewrite as twin
from tests.reference.hashing import hash_region as twin_hash
from tsdb.machinecode.compiler import replace_placeholders
from tsdb.series import SeriesTable
from tsdb.symbols import SymbolTable

SEEDS = (0x0123456789ABCDEF, 0xFEDCBA9876543210)
NO_TABLE = (np.zeros(4, np.uint64), np.zeros(4, np.uint32), np.zeros(4, np.uint32))
GUARDED = GuardedBuffer(1 << 16)
KINDS = {1: "exemplar", 2: "histogram", 3: "metadata"}
DECODERS: dict[int, Callable[..., DecodedRequest]] = {1: v1.decode, 2: v2.decode}
TWINS = {1: twin.decode_v1, 2: twin.decode_v2}


def decode(
    version: int, data: bytes, arrays: DecodeArrays | None = None, table: Any = NO_TABLE
) -> DecodedRequest:
    return DECODERS[version](GUARDED.hold(data), len(data), table, SEEDS, arrays or DecodeArrays())


def small_arrays() -> DecodeArrays:
    """Arrays without room, so that every decode has to grow them."""
    arrays = DecodeArrays()
    for resize in (arrays._size_rows, arrays._size_samples, arrays._size_spans, arrays._size_symbols):
        resize(1)
    return arrays


def expected_slow(version: int, row: twin.Row, symbol_count: int) -> bool:
    if version == 2:
        bad = any(ref >= symbol_count for ref in row.label_refs)
        return bad or not row.label_refs or len(row.label_refs) % 2 == 1
    spans = row.label_spans
    scattered = any(left[1] != right[0] for left, right in itertools.pairwise(spans))
    return scattered or not spans


def expectation(version: int, data: bytes) -> twin.Request | int:
    """What the twin reads, or its error code."""
    try:
        return TWINS[version](data)
    except twin.Malformed as error:
        return int(error.args[0])


def check(version: int, data: bytes) -> None:
    """The kernel finds what the twin finds, or fails with the same code."""
    expected = expectation(version, data)
    if isinstance(expected, int):
        with pytest.raises(MalformedMessageError) as raised:
            decode(version, data, small_arrays())
        assert raised.value.code == expected
        assert 0 <= raised.value.offset <= len(data)
        return
    arrays = small_arrays()
    found = decode(version, data, arrays)
    assert found.row_count == len(expected.rows)
    assert found.missing_rows() == list(range(found.row_count))
    for index, row in enumerate(expected.rows):
        lo, hi = int(found.first[index]), int(found.first[index + 1])
        assert found.t_ms[lo:hi].tolist() == [t for t, _, _ in row.samples]
        assert found.value_bits[lo:hi].tolist() == [bits for _, bits, _ in row.samples]
        if found.start_t_ms is not None:
            assert found.start_t_ms[lo:hi].tolist() == [start for _, _, start in row.samples]
        slow = expected_slow(version, row, len(expected.symbols))
        assert found.row_slow[index] == (ROW_SLOW if slow else ROW_FAST)
        span = (int(found.row_start[index]), int(found.row_end[index]))
        whole = version == 2 or slow
        assert span == (row.span if whole else (row.label_spans[0][0], row.label_spans[-1][1]))
    spans = zip(found.span_kind, found.span_row, found.span_start, found.span_end, strict=True)
    assert [(KINDS[int(k)], int(r), int(s), int(e)) for k, r, s, e in spans] == expected.spans


@pytest.mark.parametrize("version", [1, 2])
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_kernel_agrees_with_twin_on_valid_messages(version: int, data: st.DataObject) -> None:
    check(version, data.draw(requests(version)))


@pytest.mark.parametrize("version", [1, 2])
@settings(max_examples=800, deadline=None)
@given(data=st.data())
def test_kernel_agrees_with_twin_on_damaged_messages(version: int, data: st.DataObject) -> None:
    check(version, data.draw(damaged(version)))


@pytest.mark.parametrize("version", [1, 2])
@settings(max_examples=500, deadline=None)
@given(data=st.binary(max_size=200))
def test_kernel_agrees_with_twin_on_noise(version: int, data: bytes) -> None:
    check(version, data)


@pytest.mark.parametrize("version", [1, 2])
def test_every_truncation_of_a_message_is_read_within_its_bytes(version: int) -> None:
    labels = [(b"__name__", b"http_requests_total"), (b"instance", b"10.0.0.1:9100"), (b"job", b"node")]
    rows = [encode.Series(labels, [(1_700_000_000_000, 1.5), (1_700_000_015_000, 2.5)])] * 3
    whole = encode.write_request_v1(rows) if version == 1 else encode.write_request_v2(rows)
    for size in range(len(whole) + 1):
        check(version, whole[:size])


# One line a kind of damage: message, code, offset of the field that is wrong.
SERIES = encode.time_series_v1(encode.Series([(b"__name__", b"up")], [(1, 1.0)]))
MALFORMED = [
    ("truncated tag", b"\x80", wire.TRUNCATED, 0),
    ("length beyond the end", b"\x0a\x05\x00", wire.TRUNCATED, 0),
    ("varint of eleven bytes", b"\x08" + b"\xff" * 10 + b"\x01", wire.WRONG_WIRE_TYPE, 0),
    ("unknown varint of eleven bytes", b"\x28" + b"\xff" * 10 + b"\x01", wire.VARINT_TOO_LONG, 0),
    ("negative length", b"\x0a" + b"\xff" * 9 + b"\x01", wire.NEGATIVE_LENGTH, 0),
    ("series as a varint", b"\x08\x01", wire.WRONG_WIRE_TYPE, 0),
    ("group", b"\x2b\x2c", wire.GROUP, 0),
    ("end of a group", b"\x2c", wire.GROUP, 0),
    ("wire type 6", b"\x2e", wire.UNKNOWN_WIRE_TYPE, 0),
    ("field number 0", b"\x02\x00", wire.ILLEGAL_FIELD, 0),
    ("second series is cut", encode.length_delimited(1, SERIES) + b"\x0a\x09\x12", wire.TRUNCATED, 31),
    ("value as a varint", b"\x0a\x04\x12\x02\x08\x01", wire.WRONG_WIRE_TYPE, 4),
    ("value of four bytes", b"\x0a\x07\x12\x05\x09\x01\x02\x03\x04", wire.TRUNCATED, 4),
    ("label as a double", b"\x0a\x09\x09" + b"\0" * 8, wire.WRONG_WIRE_TYPE, 2),
]


@pytest.mark.parametrize(("name", "data", "code", "offset"), MALFORMED, ids=[row[0] for row in MALFORMED])
def test_malformed_message_is_refused_with_the_offset(name: str, data: bytes, code: int, offset: int) -> None:
    with pytest.raises(MalformedMessageError, match=f"at byte {offset} of the message") as raised:
        decode(1, data)
    assert raised.value.code == code


def test_stale_marker_and_other_nans_keep_their_bits() -> None:
    bits = [0x7FF0000000000002, 0x7FF8000000000001, 0xFFF8000000000123]
    samples = b"".join(
        encode.length_delimited(2, b"\x09" + each.to_bytes(8, "little") + encode.varint_field(2, 5))
        for each in bits
    )
    region = encode.labels_v1([(b"__name__", b"up")])
    found = decode(1, encode.length_delimited(1, region + samples))
    found.refs[:] = 7
    columns, rows = found.columns()
    assert columns.values.view(np.uint64).tolist() == bits
    assert rows.tolist() == [0, 0, 0]


@pytest.mark.parametrize("version", [1, 2])
def test_known_spellings_are_found_in_the_table(version: int) -> None:
    table = SeriesTable(SymbolTable(), SEEDS, series_limit=4096)
    rows = [
        encode.Series([(b"__name__", b"m"), (b"i", str(index).encode())], [(1_000, float(index))])
        for index in range(500)
    ]
    write = encode.write_request_v1 if version == 1 else encode.write_request_v2
    first = decode(version, write(rows))
    checks = (first.row_check >> np.uint64(32)).astype(np.uint32)
    table.insert_aliases(first.row_hash.copy(), checks, np.arange(500, dtype=np.uint32))
    # Other numbers for the same symbols, and another order of rows: the key must not depend on either.
    again = decode(version, write(rows[::-1]), table=table.snapshot())
    assert again.refs.tolist() == list(range(499, -1, -1))
    other = decode(
        version, write([encode.Series([(b"__name__", b"m"), (b"i", b"500")])]), table=table.snapshot()
    )
    assert other.refs.tolist() == [MISSING]


def all_known(data: bytes) -> SeriesTable:
    """A table in which every label region of a message has the ref of its row."""
    table = SeriesTable(SymbolTable(), SEEDS, series_limit=4096)
    found = decode(1, data)
    fast = np.flatnonzero(found.row_slow == ROW_FAST)
    checks = (found.row_check[fast] >> np.uint64(32)).astype(np.uint32)
    table.insert_aliases(found.row_hash[fast], checks, fast.astype(np.uint32))
    return table


USUAL_TIMES = st.one_of(
    st.integers(1 << 35, (1 << 42) - 1), st.sampled_from([0, 1, (1 << 35) - 1, 1 << 42, -1])
)
USUAL_SERIES = st.builds(
    lambda size, t, value, more: (size, t, value, more),
    st.integers(0, 200),
    USUAL_TIMES,
    st.sampled_from([0.0, -0.0, 1.5, float("nan")]),
    st.sampled_from([b"", b"", b"", b"\x1a\x02ab", b"\xa0\x06\x01"]),
)


@settings(max_examples=500, deadline=None)
@given(rows=st.lists(USUAL_SERIES, min_size=1, max_size=6), cut=st.sampled_from([0, 0, 0, 1, 5, 20]))
def test_messages_of_known_series_are_read_as_by_the_twin(
    rows: list[tuple[int, int, float, bytes]], cut: int
) -> None:
    parts = []
    for number, (size, t, value, more) in enumerate(rows):
        region = encode.labels_v1([(b"__name__", b"m%d" % number), (b"text", b"x" * size)])
        sample = encode.double_field(1, value) if value or math.copysign(1, value) < 0 else b""
        sample = encode.length_delimited(2, sample + encode.varint_field(2, t % 2**64))
        parts.append(encode.length_delimited(1, region + sample + more))
    whole = b"".join(parts)
    data = whole[: len(whole) - cut]
    expected = expectation(1, data)
    table = all_known(whole).snapshot()
    if isinstance(expected, int):
        with pytest.raises(MalformedMessageError) as raised:
            decode(1, data, table=table)
        assert raised.value.code == expected
        return
    found = decode(1, data, table=table)
    samples = [sample for row in expected.rows for sample in row.samples]
    assert list(zip(found.t_ms.tolist(), found.value_bits.tolist(), strict=True)) == [
        (t, bits) for t, bits, _ in samples
    ]
    assert found.first.tolist() == list(range(len(expected.rows) + 1))
    if all(row.label_spans for row in expected.rows):
        assert found.refs.tolist() == list(range(len(expected.rows)))
        spans = list(zip(found.row_start.tolist(), found.row_end.tolist(), strict=True))
        assert spans == [(row.label_spans[0][0], row.label_spans[-1][1]) for row in expected.rows]
    assert len(found.span_kind) == len(expected.spans)


def test_known_regions_are_not_read_again() -> None:
    """What the table knows is labels: bytes that are none and are in it show that nobody looked."""
    region = b"\xff" * 30
    message = encode.length_delimited(
        1, region + encode.length_delimited(2, encode.sample(1_700_000_000_000, 1.5, 0))
    )
    with pytest.raises(MalformedMessageError):
        decode(1, message)
    key, second = twin_hash(region, *SEEDS)
    table = SeriesTable(SymbolTable(), SEEDS, series_limit=4096)
    table.insert_aliases(
        np.array([key], dtype=np.uint64),
        np.array([second >> 32], dtype=np.uint32),
        np.array([7], dtype=np.uint32),
    )
    found = decode(1, message, table=table.snapshot())
    assert found.refs.tolist() == [7]
    assert found.t_ms.tolist() == [1_700_000_000_000]
    assert found.value_bits.view(np.float64).tolist() == [1.5]


def test_version_2_key_depends_on_the_order_of_symbols() -> None:
    rows = [encode.Series([(b"a", b"b")]), encode.Series([(b"b", b"a")]), encode.Series([(b"a", b"b")] * 2)]
    found = decode(2, encode.write_request_v2(rows))
    assert len(set(found.row_hash.tolist())) == 3
    assert len(set(found.row_check.tolist())) == 3


def weak_hash(buffer: Any, start: int, end: int, seed0: Any, seed1: Any) -> tuple[Any, Any]:
    """Every region has the same key; only the check tells them apart."""
    second = np.uint64(end - start) << np.uint64(56)
    for index in range(start, end):
        second = (second + np.uint64(buffer[index])) * np.uint64(0x9E3779B97F4A7C15)
    return np.uint64(42), second


def rebuilt(function: Any, names: dict[str, Any]) -> Any:
    """A jitted copy of a function whose globals are replaced by name."""
    source = getattr(function, "py_func", function)
    return numba.njit(types.FunctionType(source.__code__, {**source.__globals__, **names}))


def test_series_that_share_a_key_are_never_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_placeholders()
    weak = numba.njit(weak_hash)
    replaced = {
        each: rebuilt(getattr(remotewrite, each), {"hash_region": weak})
        for each in ("_read_series_v1", "read_plain")
    }
    weakened = rebuilt(remotewrite.decode_v1.function, replaced)
    monkeypatch.setattr(v1, "decode_v1", weakened)
    rows = [encode.Series([(b"__name__", b"m"), (b"i", str(n).encode())], [(1, float(n))]) for n in range(64)]
    message = encode.write_request_v1(rows)
    first = decode(1, message)
    assert set(first.row_hash.tolist()) == {42}
    table = SeriesTable(SymbolTable(), SEEDS, series_limit=4096)
    half = slice(0, 32)
    checks = (first.row_check >> np.uint64(32)).astype(np.uint32)
    table.insert_aliases(first.row_hash[half].copy(), checks[half], np.arange(32, dtype=np.uint32))
    again = decode(1, message, table=table.snapshot())
    assert again.refs.tolist() == list(range(32)) + [MISSING] * 32


LABEL_TEXTS = st.one_of(
    st.sampled_from(["__name__", "job", "a", ""]), st.text(max_size=6), st.just("x" * 130)
)


@settings(max_examples=500, deadline=None)
@given(
    pairs=st.lists(st.tuples(LABEL_TEXTS, LABEL_TEXTS), max_size=4),
    cut=st.integers(0, 3),
    in_order=st.booleans(),
)
def test_plain_labels_are_those_of_the_slow_way(
    pairs: list[tuple[str, str]], cut: int, in_order: bool
) -> None:
    raw = [(name.encode(), value.encode()) for name, value in (sorted(pairs) if in_order else pairs)]
    region = encode.labels_v1(raw)
    region = region[: len(region) - cut]
    plain = plain_labels(region)
    if plain is not None:
        assert plain == validated(read_labels(memoryview(region), 0))


def test_labels_as_senders_write_them_are_plain() -> None:
    region = encode.labels_v1([(b"__name__", b"up"), (b"instance", b"a:9100"), (b"job", b"node")])
    found = plain_labels(region)
    assert found is not None
    assert found.pairs == (("__name__", "up"), ("instance", "a:9100"), ("job", "node"))
