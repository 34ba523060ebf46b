"""XOR chunks against the slow twin and against known bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.xor import encode_chunk
from tsdb.kernels.xor import READ_PADDING, decode_xor_chunks, encode_xor_chunk

SPECIAL_BITS = [
    0,
    0x8000000000000000,
    0x3FF0000000000000,
    0x7FF0000000000000,
    0xFFF0000000000000,
    0x7FF0000000000002,
    0x7FF8000000000001,
    0xFFFFFFFFFFFFFFFF,
    1,
]

values = st.one_of(st.sampled_from(SPECIAL_BITS), st.integers(0, 2**64 - 1))
deltas = st.one_of(
    st.just(15_000),
    st.integers(1, 30_000),
    st.sampled_from([8191, 8192, 8193, 16383, 65535, 65536, 65537, 524288, 524289, 2**40]),
)


@st.composite
def chunk_samples(draw: st.DrawFn) -> list[tuple[int, int]]:
    t = draw(st.integers(-(2**50), 2**50))
    pairs = draw(st.lists(st.tuples(deltas, values), min_size=1, max_size=130))
    out = []
    for delta, value in pairs:
        out.append((t, value))
        t += delta
    return out


def encode(samples: list[tuple[int, int]]) -> bytes:
    t = np.array([s[0] for s in samples], dtype=np.int64)
    v = np.array([s[1] for s in samples], dtype=np.uint64)
    out = np.zeros(len(samples) * 19 + 32, dtype=np.uint8)
    return out[: encode_xor_chunk(t, v, out)].tobytes()


def decode(chunk: bytes, mint: int = -(2**62), maxt: int = 2**62) -> list[tuple[int, int]] | int:
    room = max(int.from_bytes(chunk[:2], "big"), 1)
    t, v = np.zeros(room, dtype=np.int64), np.zeros(room, dtype=np.uint64)
    buffer = np.frombuffer(chunk + bytes(READ_PADDING), dtype=np.uint8).copy()
    count = decode_xor_chunks(
        buffer, np.array([0]), np.array([len(chunk)]), mint, maxt, t, v, np.zeros(2, dtype=np.int64)
    )
    return list(zip(t[:count].tolist(), v[:count].tolist(), strict=True)) if count >= 0 else count


@settings(max_examples=300, deadline=None)
@given(chunk_samples())
def test_kernel_writes_the_bytes_of_the_slow_encoder_and_reads_them_back(samples):
    assert encode(samples) == encode_chunk(samples)
    assert decode(encode(samples)) == samples


@settings(max_examples=100, deadline=None)
@given(chunk_samples(), st.data())
def test_time_bounds_cut_the_decoded_samples(samples, data):
    lo = data.draw(st.sampled_from([s[0] for s in samples]))
    hi = data.draw(st.sampled_from([s[0] for s in samples]))
    assert decode(encode(samples), lo, hi) == [s for s in samples if lo <= s[0] <= hi]


@settings(max_examples=200, deadline=None)
@given(chunk_samples(), st.data())
def test_a_damaged_chunk_gives_samples_or_an_error_but_never_a_crash(samples, data):
    chunk = bytearray(encode(samples))
    cut = data.draw(st.integers(0, len(chunk)))
    del chunk[cut:]
    for _ in range(data.draw(st.integers(0, 3))):
        if len(chunk) > 2:
            chunk[data.draw(st.integers(2, len(chunk) - 1))] ^= data.draw(st.integers(1, 255))
    got = decode(bytes(chunk))
    assert got == -1 or len(got) <= 130


def test_a_chunk_that_says_to_have_more_samples_than_fit_is_damaged_and_nothing_is_written():
    samples = [(15_000 * i, i) for i in range(40)]
    chunk = bytearray(encode(samples))
    chunk[0:2] = (41).to_bytes(2, "big")
    t, v = np.full(60, -7, dtype=np.int64), np.full(60, 7, dtype=np.uint64)
    buffer = np.frombuffer(bytes(chunk) + bytes(READ_PADDING), dtype=np.uint8).copy()
    where = np.array([0]), np.array([len(chunk)])
    got = decode_xor_chunks(buffer, *where, 0, 2**62, t[:40], v[:40], np.zeros(2, dtype=np.int64))
    assert got == -1
    assert (t == -7).all()
    assert (v == 7).all()


@pytest.mark.parametrize("bits", SPECIAL_BITS)
def test_special_bit_patterns_pass_unchanged(bits):
    samples = [(0, 0x3FF0000000000000), (15_000, bits), (30_000, bits), (45_000, 7)]
    assert decode(encode(samples)) == samples


far_times = st.one_of(
    st.sampled_from([-(2**63), -(2**63) + 1, -1, 0, 1, 2**63 - 2, 2**63 - 1]),
    st.integers(-(2**63), 2**63 - 1),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(far_times, values), min_size=1, max_size=20, unique_by=lambda s: s[0]).map(sorted))
def test_times_as_far_apart_as_they_can_be_come_back(samples):
    assert decode(encode(samples), -(2**63), 2**63 - 1) == samples
