"""The small kernels of blocks against their slow twins."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import blockrows as slow
from tests.tsdb.memoryselection import FloatSample, MemorySelection, Row, histogram_batch
from tests.tsdb.samplestrategies import histogram_samples
from tsdb.block import Block
from tsdb.blockwriter import write_block
from tsdb.fs import FileSystem
from tsdb.kernels import blockrows, histogrampage
from tsdb.labels import Labels
from tsdb.symbols import SymbolTable

small = st.integers(0, 12)


def offsets_of(lengths: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.cumsum([0, *lengths]).astype(np.int64)


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(st.lists(st.integers(0, (1 << 32) - 1), max_size=5), max_size=8))
def test_row_steps_and_their_way_back(rows: list[list[int]]) -> None:
    offsets = offsets_of([len(row) for row in rows])
    ids = np.array([n for row in rows for n in row], dtype=np.uint32)
    steps = np.empty_like(ids)
    blockrows.row_steps(offsets, ids, steps)
    assert steps.tolist() == slow.row_steps(rows)
    blockrows.undo_row_steps(offsets, steps)
    assert steps.tolist() == ids.tolist()


@settings(max_examples=200, deadline=None)
@given(
    source=st.lists(st.integers(-9, 9), max_size=10),
    runs=st.lists(st.tuples(st.integers(-1, 11), small, st.integers(-1, 20)), max_size=4),
    size=st.integers(0, 25),
)
def test_copied_runs_stay_inside_their_arrays(
    source: list[int], runs: list[tuple[int, int, int]], size: int
) -> None:
    lo, hi, starts = ([r[0] for r in runs], [r[0] + r[1] for r in runs], [r[2] for r in runs])
    out = np.zeros(size, dtype=np.int64)
    columns = (np.array(column, dtype=np.int64) for column in (source, lo, hi, starts))
    code = blockrows.copy_runs(*columns, out)
    want = slow.copy_runs(source, lo, hi, starts, size)
    assert code == (-1 if want is None else 0)
    assert want is None or out.tolist() == want


@settings(max_examples=100, deadline=None)
@given(runs=st.lists(st.lists(st.integers(-3, 3), max_size=4), min_size=1, max_size=12))
def test_runs_hash_alike_exactly_when_they_are_equal(runs: list[list[int]]) -> None:
    offsets = offsets_of([len(run) for run in runs])
    numbers = np.array([n for run in runs for n in run], dtype=np.int64)
    a, b = np.empty(len(runs), dtype=np.uint64), np.empty(len(runs), dtype=np.uint64)
    blockrows.hash_runs(numbers, offsets[:-1], offsets[1:], np.uint64(0xABCDEF123457), np.uint64(99991), a, b)
    for i in range(len(runs)):
        for j in range(i):
            equal = runs[i] == runs[j]
            assert ((a[i], b[i]) == (a[j], b[j])) == equal


@settings(max_examples=80, deadline=None)
@given(
    samples=st.lists(st.lists(histogram_samples(0), max_size=4), max_size=3),
    shapes=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), max_size=4),
    data=st.data(),
)
def test_layouts_and_turned_counts(
    samples: list[list[object]], shapes: list[tuple[int, int]], data: st.DataObject
) -> None:
    batch = histogram_batch(samples)  # type: ignore[arg-type]
    marks = np.empty(len(batch), dtype=np.int64)
    histogrampage.mark_layouts(
        batch.row_offsets, batch.pos_offsets, batch.pos_index, batch.neg_offsets, batch.neg_index,
        batch.custom_offsets, batch.custom_values.view(np.int64), marks,
    )  # fmt: skip
    layouts = [
        [([i for i, _ in h.positive], [i for i, _ in h.negative], h.custom) for h in row]  # type: ignore[attr-defined]
        for row in samples
    ]
    assert marks.tolist() == slow.mark_layouts(layouts)
    runs = [
        [data.draw(st.lists(small, min_size=w, max_size=w)) for _ in range(length)] for length, w in shapes
    ]
    source = np.array([n for run in runs for sample in run for n in sample], dtype=np.int64)
    starts, widths = offsets_of([length for length, _ in shapes]), np.array([w for _, w in shapes], np.int64)
    turned = np.empty_like(source)
    assert histogrampage.turn_runs(starts, widths, source, turned) == 0
    assert turned.tolist() == slow.turn_runs(runs)
    assert histogrampage.turn_runs(starts, widths + 1, source, turned) == (-1 if shapes else 0)


@st.composite
def turned_streams(draw: st.DrawFn) -> list[list[tuple[list[int], list[list[int]]]]]:
    """Streams of layout runs: (bucket indexes, counts of each sample)."""
    streams = []
    for _ in range(draw(st.integers(1, 3))):
        stream = []
        for _ in range(draw(st.integers(0, 3))):
            width = draw(st.integers(0, 4))
            row = st.lists(small, min_size=width, max_size=width)
            stream.append((draw(row), draw(st.lists(row, min_size=1, max_size=20))))
        streams.append(stream)
    return streams


@settings(max_examples=80, deadline=None)
@given(streams=turned_streams(), data=st.data())
def test_turned_counts_are_turned_back(
    streams: list[list[tuple[list[int], list[list[int]]]]], data: st.DataObject
) -> None:
    stream = data.draw(st.integers(0, len(streams) - 1))
    lengths = [sum(len(samples) for _, samples in s) for s in streams]
    cuts = [sorted(data.draw(st.tuples(*[st.integers(0, length)] * 2))) for length in lengths[stream:]]
    wanted = slow.place_buckets(streams[stream:], cuts)
    runs = [run for s in streams for run in s]
    table = [offsets_of(n) for n in (lengths, map(len, streams), [len(samples) for _, samples in runs])]
    starts = offsets_of([len(index) for index, _ in runs])
    index = np.array([i for index, _ in runs for i in index], dtype=np.int32)
    lo, hi = (np.array([cut[k] for cut in cuts], dtype=np.int64) for k in range(2))
    sizes = np.empty(len(cuts), dtype=np.int64)
    histogrampage.run_sizes(*table, starts, stream, lo, hi, sizes)
    assert sizes.tolist() == [sum(len(sample) for sample in part) for part in wanted]
    turned = slow.turn_runs([samples for s in streams[stream:] for _, samples in s])
    samples = offsets_of((hi - lo).tolist())
    ends, out_index = np.zeros(int(samples[-1]) + 1, dtype=np.int64), np.empty(int(sizes.sum()), np.int32)
    out, places = np.empty(len(out_index), dtype=np.int64), offsets_of(sizes.tolist())
    histogrampage.place_buckets(
        *table, starts, index, np.array(turned, dtype=np.int64), stream, lo, hi, samples[:-1], places[:-1],
        ends, out_index, out,
    )  # fmt: skip
    flat = [sample for part in wanted for sample in part]
    assert ends.tolist() == offsets_of([len(sample) for sample in flat]).tolist()
    found = list(zip(out_index.tolist(), out.tolist(), strict=True))
    assert found == [pair for sample in flat for pair in sample]
    ends[:] = 0
    bounds = index.astype(np.int64)
    histogrampage.place_bounds(*table, starts, bounds, stream, lo, hi, samples[:-1], places[:-1], ends, out)
    assert ends.tolist() == offsets_of([len(sample) for sample in flat]).tolist()
    assert out.tolist() == [i for sample in flat for i, _ in sample]


def test_threads_read_different_rows_at_the_same_time(tmp_path: Path) -> None:
    source = [
        Row(Labels.from_dict({"__name__": "m", "i": f"{i:03}"}), [FloatSample(t, i * t) for t in range(300)])
        for i in range(400)
    ]
    fs = FileSystem()
    meta = write_block(fs, tmp_path, 0, 1000, MemorySelection(source, SymbolTable()))
    selection = Block.open(fs, tmp_path / meta.ulid, SymbolTable()).select((), 0, 1000)
    wrong: list[int] = []

    def read(first: int) -> None:
        for lo in range(first, 400, 40):
            bits = selection.read(lo, lo + 10).values.view(np.uint64).reshape(10, 300)
            wrong.extend(i for i in range(10) if not (bits[i] == np.arange(300) * (lo + i)).all())

    threads = [threading.Thread(target=read, args=(k * 10,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
