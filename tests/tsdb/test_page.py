"""The page codec: every bit pattern comes back, and no damaged page is read beyond its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.page import decode_page
from tests.tsdb.memoryselection import HistogramSample, histogram_batch, histogram_rows
from tests.tsdb.samplestrategies import any_bits, histogram_samples
from tsdb import histogrampage, histogramread, page
from tsdb.errors import CorruptionError
from tsdb.kernels import page as kernels
from tsdb.select import STALE_BITS

U64Array = npt.NDArray[np.uint64]
MASK = (1 << 64) - 1


def offsets_of(streams: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    return np.cumsum([0, *map(len, streams)]).astype(np.int64)


def decoded(raw: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], floats: bool) -> list[int]:
    out = np.empty(int(offsets[-1]), dtype=np.uint64)
    streams = np.arange(len(offsets) - 1, dtype=np.int64)
    page.decode_into(raw, streams, offsets[:-1].copy(), np.diff(offsets), out, floats, "test")
    return [int(n) for n in out]


def float_bits(values: npt.NDArray[np.float64]) -> list[int]:
    return [int(b) for b in values.view(np.uint64)]


RNG = np.random.default_rng(3)
COUNT = 700
STALE_AT_THE_END = np.round(RNG.normal(50, 3, COUNT), 2)
STALE_AT_THE_END[-1:].view(np.uint64)[:] = STALE_BITS
SERIES: list[tuple[str, npt.NDArray[np.float64], float]] = [
    # kind, values, most bytes a sample over 40 copies
    ("constant", np.full(COUNT, 12.5), 0.02),
    ("constant stale", np.full(COUNT, STALE_BITS, dtype=np.uint64).view(np.float64), 0.02),
    ("negative zero", np.full(COUNT, -0.0), 0.02),
    ("steps of a constant", np.arange(COUNT) * 15.0, 0.02),
    ("counter", np.cumsum(RNG.poisson(40, COUNT)).astype(float), 0.9),
    ("pages of memory", 4096.0 * (500_000 + np.cumsum(RNG.integers(-30, 30, COUNT))), 0.9),
    ("two decimals", STALE_AT_THE_END, 1.5),
    ("counter that resets", np.cumsum(RNG.poisson(9, COUNT)) % 900.0, 0.8),
    ("wide decimals", np.round(RNG.normal(0, 1e6, COUNT), 3), 5.0),
    ("microseconds divided twice", np.cumsum(RNG.integers(0, 3000, COUNT)) / 1000.0 / 1000.0, 1.9),
    ("float32", RNG.random(COUNT).astype(np.float32).astype(np.float64), 3.5),
    ("noise", RNG.random(COUNT), 7.1),
    ("huge integers", RNG.integers(-(1 << 62), 1 << 62, COUNT).astype(np.float64), 8.1),
    ("alternating signs", np.where(np.arange(COUNT) % 2, 5e15, -5e15), 0.3),
]


@pytest.mark.parametrize(("kind", "values", "bytes_limit"), SERIES, ids=[case[0] for case in SERIES])
def test_kinds_of_series_come_back_and_stay_small(
    kind: str, values: npt.NDArray[np.float64], bytes_limit: float
) -> None:
    del kind
    streams = [float_bits(values)] * 40
    offsets = offsets_of(streams)
    bits = np.tile(values.view(np.uint64), 40)
    stored = page.encode_floats(offsets, bits)
    assert decoded(page.decompress(stored, "test"), offsets, True) == bits.tolist()
    assert len(stored) / len(bits) <= bytes_limit


@settings(max_examples=250, deadline=None)
@given(streams=st.lists(st.lists(any_bits, max_size=30), max_size=5))
def test_every_float_bit_pattern_comes_back(streams: list[list[int]]) -> None:
    offsets = offsets_of(streams)
    bits = np.array([b for s in streams for b in s], dtype=np.uint64)
    raw = page.decompress(page.encode_floats(offsets, bits), "test")
    assert page.stream_counts(raw, "test").tolist() == [len(s) for s in streams]
    assert decoded(raw, offsets, True) == bits.tolist()
    assert decode_page(raw.tobytes(), True) == streams


decimals = st.tuples(st.integers(-(10**9), 10**9), st.integers(0, 6)).map(lambda p: p[0] / 10 ** p[1])


@settings(max_examples=200, deadline=None)
@given(
    base=decimals,
    steps=st.lists(st.integers(-3000, 3000), min_size=1, max_size=200),
    exponent=st.integers(0, 5),
    odd=st.dictionaries(st.integers(0, 199), any_bits, max_size=3),
    bend=st.sampled_from([0, 1, 2, 5]),
)
def test_decimal_series_with_odd_values_come_back(
    base: float, steps: list[int], exponent: int, odd: dict[int, int], bend: int
) -> None:
    values = np.array([round(base + k / 10**exponent, exponent) for k in np.cumsum(steps).tolist()])
    bits = values.view(np.uint64).copy()
    # Some values off by one unit in the last place, as computations leave them (two: past what is coded).
    bits += (np.arange(len(bits)) % (bend + 1) % 3).astype(np.uint64)
    for at, pattern in odd.items():
        if at < len(bits):
            bits[at] = pattern
    offsets = np.array([0, len(bits)], dtype=np.int64)
    raw = page.pack_floats(offsets, bits)
    assert decoded(raw, offsets, True) == bits.tolist()
    assert decode_page(raw.tobytes(), True) == [bits.tolist()]


integers = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-5, 5), st.just(-(1 << 63)))


@settings(max_examples=300, deadline=None)
@given(streams=st.lists(st.lists(integers, max_size=25), max_size=4), factor=st.sampled_from([1, 15_000]))
def test_every_integer_comes_back(streams: list[list[int]], factor: int) -> None:
    streams = [[n * factor if abs(n) < 1 << 40 else n for n in s] for s in streams]
    offsets = offsets_of(streams)
    raw = page.pack_integers(offsets, np.array([n for s in streams for n in s], dtype=np.int64))
    flat = [n & MASK for s in streams for n in s]
    assert decoded(raw, offsets, False) == flat
    assert [n for s in decode_page(raw.tobytes(), False) for n in s] == flat


def test_noise_is_stored_around_its_middle_even_behind_an_outlier() -> None:
    values = np.append(1e6, 1000.0 + RNG.integers(0, 200, COUNT - 1))
    raw = page.pack_floats(np.array([0, COUNT], dtype=np.int64), values.view(np.uint64).copy())
    form, base = int(raw[kernels.PREFIX_BYTES + 4]), int(raw[15:23].view(np.int64)[0])
    middle = base + int(raw[23:31].view(np.int64)[0])
    assert (form >> 1 & 3, base) == (0, 1_000_000)
    assert 1050 <= middle <= 1150
    # One byte plane: 200 values about their middle.
    assert len(raw) == kernels.PREFIX_BYTES + kernels.HEADER_BYTES + COUNT - 1 + kernels.LOW_PADDING
    assert decode_page(raw.tobytes(), True) == [float_bits(values)]


def test_some_streams_are_decoded_to_their_places() -> None:
    streams = [float_bits(values[:50]) for _, values, _ in SERIES]
    offsets = offsets_of(streams)
    raw = page.pack_floats(offsets, np.array([b for s in streams for b in s], dtype=np.uint64))
    wanted = np.array([2, 6, 10], dtype=np.int64)
    out = np.zeros(200, dtype=np.uint64)
    starts, lengths = np.array([140, 0, 60], dtype=np.int64), np.full(3, 50, dtype=np.int64)
    page.decode_into(raw, wanted, starts, lengths, out, True, "test")
    for stream, start in zip(wanted.tolist(), starts.tolist(), strict=True):
        assert out[start : start + 50].tolist() == streams[stream]
    assert not out[110:140].any()


def test_large_pages_are_stored_in_parts_and_small_ones_whole() -> None:
    small = page.encode_floats(np.array([0, 9], dtype=np.int64), np.arange(9, dtype=np.uint64))
    assert small[:4] == b"\x01\0\0\0"
    noise = RNG.normal(0, 1e5, 40_000).round(2)
    large = page.encode_floats(np.array([0, 40_000], dtype=np.int64), noise.view(np.uint64))
    assert int.from_bytes(large[:4], "little") > 2


def _sample_page() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    streams = [float_bits(values[:40]) for _, values, _ in SERIES]
    streams[3][5] = STALE_BITS
    offsets = offsets_of(streams)
    return page.pack_floats(offsets, np.array([b for s in streams for b in s], dtype=np.uint64)), offsets


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_damaged_pages_are_refused_or_decoded_within_bounds(data: st.DataObject) -> None:
    raw, offsets = _sample_page()
    broken = raw.copy()
    header = kernels.PREFIX_BYTES + kernels.HEADER_BYTES * (len(offsets) - 1) + kernels.PATCH_BYTES
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, header))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(raw), len(raw), data.draw(st.integers(0, len(raw)))]))
    # Bytes behind the page are not the page's: the decoder must not depend on them.
    results = []
    for filler in (0, 255):
        room = np.full(len(raw) + 4096, filler, dtype=np.uint8)
        room[:cut] = broken[:cut]
        results.append(_outcome(lambda room=room: decoded(room[:cut], offsets, True)))  # type: ignore[misc]
    assert results[0] == results[1]


def _outcome(run: Callable[[], list[int]]) -> list[int] | str:
    try:
        return run()
    except CorruptionError as error:
        return str(error)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("streams", 1 << 30, "do not add up"),
        ("patches", 1 << 30, "do not add up"),
        ("width", 9, "unknown form"),
        ("form", 6, "unknown form"),
        ("exponent", 99, "unknown form"),
        ("count", 7, "do not add up|another length|unknown form"),
    ],
)
def test_header_damage_is_named(field: str, value: int, reason: str) -> None:
    offsets = np.array([0, 40], dtype=np.int64)
    raw = page.pack_floats(offsets, SERIES[6][1][:40].view(np.uint64)).copy()
    at = {"streams": 0, "patches": 4, "count": 8, "form": 12, "width": 13, "exponent": 14}[field]
    size = 4 if at <= 8 else 1
    raw[at : at + size] = np.frombuffer(value.to_bytes(size, "little"), dtype=np.uint8)
    with pytest.raises(CorruptionError, match=reason):
        decoded(raw, offsets, True)


def test_stored_pages_that_do_not_decompress_are_refused() -> None:
    raw, _ = _sample_page()
    stored = page.compress(raw)
    for broken in (
        b"",
        stored[:3],
        stored[:-1],
        stored + b"x",
        b"\xff" * len(stored),
        stored[:12] + b"?" * 40,
    ):
        with pytest.raises(CorruptionError):
            page.decompress(broken, "test")


def test_page_over_the_limit_is_refused_before_memory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, _ = _sample_page()
    stored = page.compress(raw)
    monkeypatch.setattr(page, "PAGE_BYTES_LIMIT", len(raw) - 1)
    with pytest.raises(CorruptionError, match=f"limit of {len(raw) - 1}"):
        page.decompress(stored, "test")


histogram_streams = st.lists(st.lists(histogram_samples(0), max_size=4), max_size=3)


@settings(max_examples=80, deadline=None)
@given(streams=histogram_streams, repeat=st.integers(1, 3))
def test_every_histogram_comes_back(streams: list[list[HistogramSample]], repeat: int) -> None:
    streams = [[h._replace(start_t_ms=0) for h in s for _ in range(repeat)] for s in streams]
    stored = histogrampage.encode(histogram_batch(streams))
    assert histogram_rows(histogramread.decode(stored, "test")) == streams


def test_histogram_counts_of_one_layout_take_less_than_two_bytes_a_bucket() -> None:
    counts = np.cumsum(RNG.poisson(5, (200, 30)), axis=0)
    samples = [
        HistogramSample(
            0, 0, 3, 0, 0, 0, *float_bits(np.array([row.sum(), row.sum() * 0.5])), 0,
            tuple(zip(range(30), float_bits(row.astype(np.float64)), strict=True)), (), (),
        )
        for row in counts
    ]  # fmt: skip
    stored = histogrampage.encode(histogram_batch([samples]))
    assert len(stored) / (200 * 30) < 0.9


@settings(max_examples=100, deadline=None)
@given(streams=histogram_streams, data=st.data())
def test_damaged_histogram_pages_are_refused_or_decoded(
    streams: list[list[HistogramSample]], data: st.DataObject
) -> None:
    stored = bytearray(histogrampage.encode(histogram_batch(streams)))
    for _ in range(data.draw(st.integers(1, 3))):
        stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    try:
        histogramread.decode(bytes(stored), "test")
    except CorruptionError as error:
        assert "test" in str(error)  # noqa: PT017


def test_histogram_page_of_too_many_buckets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = HistogramSample(0, 0, 0, 0, 0, 0, 0, 0, 0, tuple((i, 1) for i in range(50)), (), (1,) * 9)
    stored = histogrampage.encode(histogram_batch([[sample] * 20]))
    monkeypatch.setattr(page, "PAGE_BYTES_LIMIT", 999)
    with pytest.raises(CorruptionError, match="1000 buckets, limit 999"):
        histogramread.decode(stored, "test")
