"""Kernels that read Prometheus's index entries, chunk frames and log samples, beside their slow twins."""

from __future__ import annotations

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.promindex import (
    ChunkMeta,
    Pairs,
    chunk_frame,
    read_samples_record,
    read_series_entry,
    samples_record,
    series_entry,
    uvarint,
)
from tsdb.errors import CorruptionError
from tsdb.kernels import promchunks, promindex
from tsdb.prometheusblock.checksum import crc_table, kernel_error
from tsdb.prometheusblock.walrecords import read_samples

SYMBOLS = 50
TIMES = st.integers(-(2**50), 2**50)
PAIRS = st.dictionaries(st.integers(0, SYMBOLS - 1), st.integers(0, SYMBOLS - 1), max_size=8)
CHUNKS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**7), st.integers(8, 2**40)), max_size=6)
FLIPS = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(1, 255)), max_size=3)
WORDS = st.integers(0, 2**64 - 1)


def metas(first: int, steps: list[tuple[int, int, int]]) -> list[ChunkMeta]:
    found, t = [], first
    for gap, length, ref in steps:
        found.append((t + gap, t + gap + length, ref))
        t += gap + length
    return found


def read_entries(data: bytes, offsets: list[int]) -> list[tuple[Pairs, list[ChunkMeta]]]:
    """What the kernels read; ValueError with the reason where they refuse."""
    buffer = np.frombuffer(data, dtype=np.uint8)
    places = np.array(offsets, dtype=np.int64)
    labels, chunks = np.zeros(len(places), dtype=np.int64), np.zeros(len(places), dtype=np.int64)
    code = promindex.measure_series(buffer, places, crc_table(), SYMBOLS, labels, chunks)
    if code:
        raise ValueError(kernel_error(int(code)))
    label_ends, chunk_ends = (np.concatenate([[0], np.cumsum(part)]) for part in (labels, chunks))
    names, values = (np.zeros(label_ends[-1], dtype=np.uint32) for _ in range(2))
    promindex.read_labels(buffer, places, label_ends, names, values)
    columns = [np.zeros(chunk_ends[-1], dtype=np.int64) for _ in range(3)]
    promindex.read_chunk_refs(buffer, places, chunk_ends, *columns)
    pairs = list(zip(names.tolist(), values.tolist(), strict=True))
    found = list(zip(*(column.tolist() for column in columns), strict=True))
    return [
        (pairs[label_ends[i] : label_ends[i + 1]], found[chunk_ends[i] : chunk_ends[i + 1]])
        for i in range(len(places))
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(PAIRS, TIMES, CHUNKS), max_size=5))
def test_entries_are_read_as_they_were_written(rows: list[tuple[dict[int, int], int, list]]) -> None:  # type: ignore[type-arg]
    expected = [(sorted(pairs.items()), metas(first, steps)) for pairs, first, steps in rows]
    data, offsets = bytearray(16), []
    for pairs, chunks in expected:
        offsets.append(len(data))
        data += series_entry(pairs, chunks)
    assert read_entries(bytes(data), offsets) == expected
    assert [read_series_entry(bytes(data), at, SYMBOLS) for at in offsets] == expected


@settings(deadline=None, max_examples=300)
@given(PAIRS, CHUNKS, FLIPS, st.booleans())
def test_a_damaged_entry_is_refused_or_read_as_the_slow_twin_reads_it(
    pairs: dict[int, int], steps: list[tuple[int, int, int]], flips: list[tuple[int, int]], sealed: bool
) -> None:
    entry = series_entry(sorted(pairs.items()), metas(0, steps))
    head = len(entry) - 4
    data = bytearray(entry)
    for place, mask in flips:
        data[place % len(data)] ^= mask
    if sealed:
        # A body that does not follow the format under a checksum that is right.
        size = 1 if data[0] < 0x80 else 2
        body = bytes(data[size:head])
        data = bytearray(uvarint(len(body)) + body + google_crc32c.value(body).to_bytes(4, "big"))
    try:
        expected = read_series_entry(bytes(data), 0, SYMBOLS)
    except ValueError:
        with pytest.raises(ValueError, match=r"does not|reaches beyond"):
            read_entries(bytes(data), [0])
    else:
        assert read_entries(bytes(data), [0]) == [expected]


@given(st.binary(max_size=100))
@settings(deadline=None)
def test_frames_are_found_and_their_checksums_verified(data: bytes) -> None:
    body = b"\x00\x07" + data
    raw = bytearray(b"\x85\xbd\x40\xdd\x01\0\0\0" + chunk_frame(1, body))

    def frame(segment: bytes, verify: bool = True) -> tuple[int, ...]:
        out = [np.zeros(1, dtype=np.int64) for _ in range(3)]
        encoding = np.zeros(1, dtype=np.uint8)
        buffer, offsets = np.frombuffer(segment, dtype=np.uint8), np.array([8], dtype=np.int64)
        code = promchunks.read_frames(buffer, offsets, crc_table(), verify, out[0], out[1], encoding, out[2])
        return int(code), int(out[0][0]), int(out[1][0]), int(encoding[0]), int(out[2][0])

    start = len(raw) - len(body) - 4
    assert frame(bytes(raw)) == (0, start, len(body), 1, 7)
    assert kernel_error(frame(bytes(raw[:-1]))[0]) == (0, "reaches beyond the end of the file")
    raw[start + 2 if data else start] ^= 0x20
    assert kernel_error(frame(bytes(raw))[0]) == (0, "does not match its checksum")
    assert frame(bytes(raw), verify=False)[0] == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**62), TIMES, WORDS), max_size=20), FLIPS, st.integers(0, 400))
def test_samples_of_the_log_are_read_as_the_slow_twin_reads_them(
    samples: list[tuple[int, int, int]], flips: list[tuple[int, int]], cut: int
) -> None:
    whole = samples_record(samples)
    assert read_samples_record(whole) == samples
    data = bytearray(whole[: max(len(whole) - cut, 0)] if cut < 40 else whole)
    for place, mask in flips if data else []:
        data[place % len(data)] ^= mask
    try:
        expected = read_samples_record(bytes(data))
    except ValueError:
        with pytest.raises(CorruptionError):
            read_samples(b"\x02" + data)
    else:
        found = read_samples(b"\x02" + data)
        assert list(zip(*(column.tolist() for column in found), strict=True)) == expected
