"""Chunks that Prometheus 3.14 encoded (prometheuschunks/main.go made them) decode to the samples it reads."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.promchunks import decode_floats as slow_floats
from tests.reference.promchunks import decode_histograms as slow_histograms
from tests.tsdb.memoryselection import FloatSample, HistogramSample, bits_of, histogram_rows
from tsdb.errors import CorruptionError
from tsdb.kernels.promchunks import FLOAT_HISTOGRAM, FLOAT_HISTOGRAM_ST, HISTOGRAM_ST, XOR, XOR2
from tsdb.kernels.xor import READ_PADDING
from tsdb.prometheusblock.chunks import Chunks, decode_floats, decode_histograms

CASES: list[dict[str, Any]] = json.loads(
    gzip.decompress((Path(__file__).parent / "prometheuschunks" / "chunks.json.gz").read_bytes())
)
FLOAT_CASES = [case for case in CASES if case["Encoding"] in (XOR, XOR2)]
HISTOGRAM_CASES = [case for case in CASES if case["Encoding"] not in (XOR, XOR2)]


def chunks_of(items: list[tuple[int, bytes]]) -> Chunks:
    lengths = np.array([len(data) for _, data in items], dtype=np.int64)
    raw = b"".join(data for _, data in items) + b"\xa5" * READ_PADDING
    masks = [0x3FFF if code in (HISTOGRAM_ST, FLOAT_HISTOGRAM_ST) else 0xFFFF for code, _ in items]
    counts = [int.from_bytes(data[:2], "big") & mask for (_, data), mask in zip(items, masks, strict=True)]
    return Chunks(
        np.frombuffer(bytearray(raw), dtype=np.uint8),
        np.cumsum(lengths) - lengths,
        lengths,
        np.array([code for code, _ in items], dtype=np.uint8),
        np.array(counts, dtype=np.int64),
    )


def floats_of(items: list[tuple[int, bytes]]) -> list[FloatSample]:
    found = decode_floats(chunks_of(items), "test")
    bits = found.values.view(np.uint64).tolist()
    return [FloatSample(*s) for s in zip(found.t_ms.tolist(), bits, found.start_t_ms.tolist(), strict=True)]


def histograms_of(items: list[tuple[int, bytes]]) -> list[HistogramSample]:
    chunks = chunks_of(items)
    offsets = np.array([0, int(chunks.counts.sum())], dtype=np.int64)
    return histogram_rows(decode_histograms(chunks, offsets, "test"))[0]


def expected_floats(case: dict[str, Any]) -> list[FloatSample]:
    return [FloatSample(s["T"], int(s["V"], 16), s["ST"]) for s in case["Floats"]]


def expected_histograms(case: dict[str, Any]) -> list[HistogramSample]:
    def buckets(side: list[list[str]]) -> tuple[tuple[int, int], ...]:
        return tuple((int(index), int(count, 16)) for index, count in side)

    is_float = int(case["Encoding"] in (FLOAT_HISTOGRAM, FLOAT_HISTOGRAM_ST))
    return [
        HistogramSample(
            *(h["T"], h["ST"], h["Schema"], h["Hint"]),
            *(int(h[key], 16) for key in ("ZT", "ZC", "Count", "Sum")),
            is_float,
            buckets(h["Pos"]),
            buckets(h["Neg"]),
            tuple(int(value, 16) for value in h["Custom"]),
        )
        for h in case["Hists"]
    ]


def raw(case: dict[str, Any]) -> tuple[int, bytes]:
    return case["Encoding"], bytes.fromhex(case["Data"])


@pytest.mark.parametrize("case", FLOAT_CASES, ids=lambda case: f"{case['Name']}x{len(case['Floats'])}")
def test_float_chunks_decode_bit_for_bit(case: dict[str, Any]) -> None:
    expected = expected_floats(case)
    assert floats_of([raw(case)]) == expected
    assert slow_floats(*raw(case)) == expected


@pytest.mark.parametrize("case", HISTOGRAM_CASES, ids=lambda case: f"{case['Name']}x{len(case['Hists'])}")
def test_histogram_chunks_decode_bit_for_bit(case: dict[str, Any]) -> None:
    expected = expected_histograms(case)
    assert histograms_of([raw(case)]) == expected
    assert slow_histograms(*raw(case)) == expected


def test_many_chunks_decode_one_after_the_other() -> None:
    assert floats_of([raw(case) for case in FLOAT_CASES]) == [
        s for c in FLOAT_CASES for s in expected_floats(c)
    ]
    assert histograms_of([raw(case) for case in HISTOGRAM_CASES]) == [
        h for case in HISTOGRAM_CASES for h in expected_histograms(case)
    ]


def test_stale_histogram_has_the_marker_and_no_buckets() -> None:
    stale = [h for case in HISTOGRAM_CASES for h in expected_histograms(case) if h.sum == 0x7FF0000000000002]
    assert stale
    assert all(not h.positive and not h.negative and h.count == bits_of(0.0) for h in stale)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["Name"])
def test_a_cut_chunk_is_damage(case: dict[str, Any]) -> None:
    code, data = raw(case)
    decode = floats_of if code in (XOR, XOR2) else histograms_of
    for length in {2, 3, 4, len(data) // 2, len(data) - 1}:
        if length < len(data):
            with pytest.raises(CorruptionError, match="does not follow its format"):
                decode([(code, data[:length])])


def test_a_second_sample_without_a_value_is_damage() -> None:
    case = next(case for case in FLOAT_CASES if case["Encoding"] == XOR2 and len(case["Floats"]) == 1)
    data = bytearray(raw(case)[1])
    data[1] = 2
    with pytest.raises(CorruptionError):
        floats_of([(XOR2, bytes(data) + b"\x05")])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CASES), st.lists(st.tuples(st.integers(2, 1 << 20), st.integers(1, 255)), max_size=4))
def test_a_damaged_chunk_is_refused_or_read_as_the_slow_twin_reads_it(
    case: dict[str, Any], flips: list[tuple[int, int]]
) -> None:
    code, data = raw(case)
    damaged = bytearray(data)
    for place, mask in flips:
        damaged[2 + place % (len(damaged) - 2)] ^= mask
    item = (code, bytes(damaged))
    fast, slow = (floats_of, slow_floats) if code in (XOR, XOR2) else (histograms_of, slow_histograms)
    try:
        expected = slow(*item)
    except ValueError:
        with pytest.raises(CorruptionError):
            fast([item])
    else:
        assert fast([item]) == expected
