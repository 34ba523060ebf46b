"""Kernels that read records of the log many at a time, beside reading them one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdb.kernels.bundletimes import (
    CODED_AT,
    CODED_SIZE,
    COUNT,
    KEYS_AT,
    KEYS_SIZE,
    LIST,
    PART_WORDS,
    REFS_SIZE,
    TIMES_SIZE,
)
from tsdb.kernels.walscan import (
    NOT_READ,
    RECORD_WORDS,
    checksum_tables,
    gather_parts,
    number_lists,
    scan_records,
)
from tsdb.wal import COMPRESSED, CONTINUES, SegmentRead, file_header, read_segment, record_bytes
from tsdb.walrecords import SAMPLES_HEADER, PayloadCodec, RecordType, SamplesPayload
from tsdb.walwindow import Bundle

KINDS = (RecordType.SAMPLES, RecordType.SAMPLES, RecordType.SERIES, RecordType.STARTS)


def written(rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[int]]:
    """A segment of random records, and where its records begin."""
    out, begins, sequence = [file_header(1)], [], int(rng.integers(1, 1 << 40))
    codec = PayloadCodec()
    for _ in range(count):
        kind = KINDS[int(rng.integers(len(KINDS)))]
        payload, flags = rng.bytes(int(rng.integers(0, 60))), 0
        if kind == RecordType.SAMPLES and rng.random() < 0.8:
            keys = rng.bytes(int(rng.integers(0, 40))) * int(rng.integers(1, 12))
            refs_size = int(rng.integers(0, len(keys) + 1))
            size = len(keys) - refs_size
            payload = codec.pack_samples(7, refs_size, size, memoryview(keys), memoryview(payload))
            if rng.random() < 0.1:
                payload, packed = codec.pack([payload * 20])
                flags = COMPRESSED if packed else 0
        if rng.random() < 0.3:
            flags |= CONTINUES
        begins.append(sum(map(len, out)))
        out += record_bytes(kind, flags, sequence, payload, int(rng.integers(0, 20)) * 7 % 512)
        sequence += 1
    return np.frombuffer(b"".join(out), dtype=np.uint8).copy(), begins


def expected_part(data: np.ndarray, kind: int, flags: int, at: int, size: int) -> SamplesPayload | None:
    """What a plain record of samples holds."""
    if kind != RecordType.SAMPLES or flags & COMPRESSED or size < SAMPLES_HEADER.size:
        return None
    count, refs_size, times_size, packed = SAMPLES_HEADER.unpack_from(data.data, at)
    end = at + SAMPLES_HEADER.size + refs_size + times_size
    if packed or count > 1 << 26 or end > at + size:
        return None
    keys = data[at + SAMPLES_HEADER.size : end]
    return SamplesPayload(count, refs_size, times_size, keys, data[end : at + size])


def same(left: SamplesPayload, right: SamplesPayload) -> bool:
    return (
        (left.count, left.refs_size, left.times_size) == (right.count, right.refs_size, right.times_size)
        and np.array_equal(left.keys, right.keys)
        and np.array_equal(left.coded, right.coded)
    )


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 30), st.integers(1, 12), st.booleans())
def test_records_are_those_of_reading_them_one_by_one(seed, count, rows, damage):
    rng = np.random.default_rng(seed)
    data, begins = written(rng, count)
    if damage:
        data = data[: int(rng.integers(16, len(data) + 1))]
        if len(data) > 16 and rng.random() < 0.7:
            data[int(rng.integers(16, len(data)))] ^= 1 << int(rng.integers(0, 8))
    state = SegmentRead()
    expected = [record for batch in read_segment(data, 1, state) for record in batch]
    found: list[tuple[int, ...]] = []
    progress = np.array([16, 0], dtype=np.int64)
    tables = checksum_tables()
    while True:
        records = np.zeros((rows, RECORD_WORDS), dtype=np.int64)
        parts = np.zeros((rows, PART_WORDS), dtype=np.int64)
        taken = scan_records(data, progress, tables, records, parts)
        if not taken:
            break
        for record, part in zip(records[:taken].tolist(), parts[:taken], strict=True):
            wanted = expected_part(data, *record[:2], *record[3:])
            assert (part[COUNT] == NOT_READ) == (wanted is None)
            if wanted is not None:
                (held,) = Bundle(data, data[:0], part.reshape(1, -1)).parts
                assert same(held, wanted)
        found += [tuple(record) for record in records[:taken].tolist()]
    # A batch of more records than there are rows is left to the slow reader, with all behind it.
    wanted_rows = [
        (r.kind, r.flags, r.sequence, begins[i] + 20, len(r.payload)) for i, r in enumerate(expected)
    ]
    assert found == wanted_rows[: len(found)]
    if len(found) < len(wanted_rows):
        left = wanted_rows[len(found) :]
        assert all(flags & CONTINUES for _, flags, *_ in left[:rows])
    else:
        assert progress.tolist() == [state.good_bytes, state.sequence]


texts = st.lists(st.binary(min_size=0, max_size=40) | st.sampled_from([b"", b"a", b"ab"]), min_size=1)


@settings(max_examples=100, deadline=None)
@given(texts, st.integers(0, 2**32))
def test_lists_of_the_same_bytes_have_the_same_number(refs, seed):
    rng = np.random.default_rng(seed)
    payloads = [
        SamplesPayload(1, len(text), 2, np.frombuffer(text + b"tt", dtype=np.uint8), np.zeros(3, np.uint8))
        for text in refs
    ]
    bundle = moved(Bundle.of(payloads), rng)
    firsts = np.empty(len(refs), dtype=np.int64)
    table = np.empty(2 << len(refs).bit_length(), dtype=np.int64)
    count = number_lists(
        bundle.data, bundle.extra, bundle.records, np.uint64(seed), np.uint64(5), table, firsts
    )
    numbers: dict[bytes, int] = {}
    expected = [numbers.setdefault(text, len(numbers)) for text in refs]
    assert bundle.records[:, LIST].tolist() == expected
    assert firsts[:count].tolist() == [refs.index(text) for text in numbers]


def moved(bundle: Bundle, rng: np.random.Generator) -> Bundle:
    """The same bytes, some of them in `extra`."""
    records = bundle.records.copy()
    for column in (KEYS_AT, CODED_AT):
        outside = rng.random(len(records)) < 0.5
        records[outside, column] = ~records[outside, column]
    return Bundle(bundle.data, bundle.data.copy(), records)


@settings(max_examples=100, deadline=None)
@given(texts, st.integers(0, 2**32))
def test_records_side_by_side_are_all_their_bytes(keys, seed):
    rng = np.random.default_rng(seed)
    coded = [rng.bytes(int(rng.integers(0, 30))) for _ in keys]
    payloads = [
        SamplesPayload(1, 0, len(key), np.frombuffer(key, np.uint8), np.frombuffer(value, np.uint8))
        for key, value in zip(keys, coded, strict=True)
    ]
    bundle = moved(Bundle.of(payloads), rng)
    assert all(same(*pair) for pair in zip(bundle.parts, payloads, strict=True))
    assert bundle.records[:, [REFS_SIZE, TIMES_SIZE]].sum() == bundle.records[:, KEYS_SIZE].sum()
    out = [np.empty(int(bundle.records[:, column].sum()), np.uint8) for column in (KEYS_SIZE, CODED_SIZE)]
    gather_parts(bundle.data, bundle.extra, bundle.records, *out)
    assert out[0].tobytes() == b"".join(keys)
    assert out[1].tobytes() == b"".join(coded)
