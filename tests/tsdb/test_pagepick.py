"""Numbers picked from a page are those of the decoder of whole streams; damaged pages are refused alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.page import decode_page
from tests.tsdb.samplestrategies import any_bits
from tests.tsdb.test_page import SERIES, offsets_of
from tsdb import page
from tsdb.errors import CorruptionError

I64Array = npt.NDArray[np.int64]


def picked(raw: npt.NDArray[np.uint8], counts: list[int], picks: list[list[int]]) -> list[list[int]]:
    """Some numbers of every stream, as bits."""
    offsets = offsets_of(picks)
    out, work = np.zeros(int(offsets[-1]), dtype=np.uint64), np.zeros(max(counts, default=0), dtype=np.uint64)
    page.decode_picked(
        raw, np.arange(len(counts), dtype=np.int64), offsets[:-1].copy(), np.array(counts, dtype=np.int64),
        offsets[:-1].copy(), np.diff(offsets), np.array([i for each in picks for i in each], dtype=np.int64),
        work, out, lambda: "test",
    )  # fmt: skip
    return [out[a:b].tolist() for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def places(data: st.DataObject, count: int) -> list[int]:
    """Some of a stream's numbers, ascending: few, many, or none."""
    stride = data.draw(st.integers(1, 40))
    some = data.draw(st.sets(st.integers(0, count - 1), max_size=6)) if count else set()
    return sorted(some | set(range(data.draw(st.integers(0, count)), count, stride)))


@settings(max_examples=150, deadline=None)
@given(streams=st.lists(st.lists(any_bits, max_size=30), max_size=5), data=st.data())
def test_picked_bit_patterns_are_those_of_the_slow_twin(
    streams: list[list[int]], data: st.DataObject
) -> None:
    bits = np.array([b for s in streams for b in s], dtype=np.uint64)
    raw = page.decompress(page.encode_floats(offsets_of(streams), bits), "test")
    picks = [places(data, len(stream)) for stream in streams]
    want = [
        [stream[i] for i in each]
        for stream, each in zip(decode_page(raw.tobytes(), True), picks, strict=True)
    ]
    assert picked(raw, [len(s) for s in streams], picks) == want


@pytest.mark.parametrize(("kind", "values", "_"), SERIES, ids=[case[0] for case in SERIES])
@settings(max_examples=20, deadline=None)
@given(data=st.data(), odd=st.dictionaries(st.integers(0, 600), any_bits, max_size=3), patched=st.booleans())
def test_picked_samples_of_kinds_of_series(
    kind: str,
    values: npt.NDArray[np.float64],
    _: float,
    data: st.DataObject,
    odd: dict[int, int],
    patched: bool,
) -> None:
    del kind
    first, count = data.draw(st.integers(0, 20)), data.draw(st.integers(1, 600))
    streams = [values[first:][:count].view(np.uint64).copy(), values.view(np.uint64).copy()]
    for at, pattern in odd.items() if patched else ():
        streams[1][at] = pattern
    raw = page.decompress(
        page.encode_floats(offsets_of([s.tolist() for s in streams]), np.concatenate(streams)), "t"
    )
    picks = [places(data, len(stream)) for stream in streams]
    want = [stream[each].tolist() for stream, each in zip(streams, picks, strict=True)]
    assert picked(raw, [len(s) for s in streams], picks) == want


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_pages_are_refused_or_picked_within_bounds(data: st.DataObject) -> None:
    chosen = [SERIES[i][1][:90] for i in (0, 4, 6, 7, 10, 11)]
    bits = np.concatenate([values.view(np.uint64) for values in chosen])
    raw = page.pack_floats(offsets_of([[0] * 90] * len(chosen)), bits).copy()
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, min(len(raw) - 1, 400)))] = data.draw(st.integers(0, 255))
    raw = raw[: len(raw) - data.draw(st.sampled_from([0, 0, 0, 1, 9]))]
    picks = [list(range(3, 90, 7))] * len(chosen)
    offsets = np.arange(len(chosen) + 1) * 90
    whole = np.zeros(len(bits), dtype=np.uint64)
    streams = np.arange(len(chosen), dtype=np.int64)
    try:
        page.decode_into(raw, streams, offsets[:-1].copy(), np.diff(offsets), whole, True, "test")
    except CorruptionError as error:
        with pytest.raises(CorruptionError, match=str(error).split(": ")[-1]):
            picked(raw, [90] * len(chosen), picks)
        return
    want = [whole.reshape(-1, 90)[row, 3::7].tolist() for row in range(len(chosen))]
    assert picked(raw, [90] * len(chosen), picks) == want
