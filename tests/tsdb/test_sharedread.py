"""Rows with shared timestamps are those of `Selection.read`; scratch memory is never given out twice."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tsdb.memoryselection import FloatSample, MemorySelection, Row
from tests.tsdb.samplestrategies import any_bits
from tests.tsdb.stores import HOUR, OPTIONS, T0, Store, name
from tsdb import blockjoin, decodedruns
from tsdb.block import Block
from tsdb.blockcache import BlockCache
from tsdb.blockjoin import BlockJoins
from tsdb.blockwriter import write_block
from tsdb.columnnumbers import ColumnNumbers
from tsdb.columnsfile import ColumnsFile
from tsdb.decodedruns import DecodedRuns
from tsdb.errors import CorruptionError
from tsdb.fs import FileSystem
from tsdb.joinedselect import JoinedSelection
from tsdb.kernels import sharedrows as kernels
from tsdb.labels import Labels
from tsdb.mergeselect import merge_selections
from tsdb.samplerows import read_rows
from tsdb.scratch import SMALL_BYTES, forget, scratch
from tsdb.select import SampleBatch, Selection, SharedSamples, shared_rows_of
from tsdb.symbols import SymbolTable

FS = FileSystem()
PART_MS = 1_000


def assert_same(want: SampleBatch, samples: SharedSamples) -> None:
    assert_same_batch(want, samples.batch())


def assert_same_batch(want: SampleBatch, got: SampleBatch) -> None:
    assert got.offsets.tolist() == want.offsets.tolist()
    assert got.t_ms.tolist() == want.t_ms.tolist()
    assert got.values.view(np.uint64).tolist() == want.values.view(np.uint64).tolist()


@st.composite
def parts(draw: st.DrawFn) -> list[list[Row]]:
    """For each block series with times of its own part, of few kinds, so that some are shared."""
    found = []
    for part in range(draw(st.integers(1, 3))):
        kinds = [sorted(draw(st.sets(st.integers(0, PART_MS - 1), min_size=1, max_size=9))) for _ in range(2)]
        rows = []
        for i in sorted(draw(st.sets(st.integers(0, 5), min_size=1))):
            times = draw(st.sampled_from(kinds))
            samples = [FloatSample(part * PART_MS + t, draw(any_bits)) for t in times]
            rows.append(Row(Labels.from_dict({"__name__": "m", "i": str(i)}), samples))
        found.append(rows)
    return found


def blocks_of(directory: Path, parts: list[list[Row]]) -> list[Block]:
    symbols, opened = SymbolTable(), []
    for part, rows in enumerate(parts):
        source = MemorySelection(rows, SymbolTable())
        meta = write_block(FS, directory, part * PART_MS, (part + 1) * PART_MS, source)
        opened.append(Block.open(FS, directory / meta.ulid, symbols))
    return opened


def merged(blocks: list[Block], mint: int, maxt: int) -> Selection:
    return merge_selections([block.select((), mint, maxt) for block in blocks])


def joined(
    blocks: list[Block],
    mint: int,
    maxt: int,
    joins: BlockJoins | None = None,
    decoded: DecodedRuns | None = None,
) -> Selection | None:
    joins = BlockJoins(BlockCache()) if joins is None else joins
    runs = joins.runs(blocks, (), False, lambda: None)
    if runs is None:
        return None
    times = joins.times(blocks, runs, False)
    return JoinedSelection(
        blocks, (runs, times), None, (mint, maxt), lambda: merged(blocks, mint, maxt), False, decoded
    )


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blocks=parts(), mint=st.integers(-5, 2500), length=st.integers(0, 3000), data=st.data())
def test_rows_of_blocks_are_those_that_read_gives(
    tmp_path_factory: pytest.TempPathFactory,
    blocks: list[list[Row]],
    mint: int,
    length: int,
    data: st.DataObject,
) -> None:
    opened = blocks_of(tmp_path_factory.mktemp("blocks"), blocks)
    joins = BlockJoins(BlockCache())
    # What was remembered for one time range serves the next.
    assert joined(opened, 0, 1, joins) is not None
    selection, want = joined(opened, mint, mint + length, joins), merged(opened, mint, mint + length)
    assert selection is not None
    rows = selection.labels.rows()
    filled = [row for row in range(len(want.labels)) if len(want.read(row, row + 1).t_ms)]
    assert sorted(rows) == sorted(want.labels.row(row) for row in filled)
    place = {want.labels.row(row): row for row in filled}
    count = len(rows)
    if not count:
        return
    reader = shared_rows_of(selection)
    assert reader is not None
    lo = data.draw(st.integers(0, count - 1))
    for first, last in ((0, count), (lo, data.draw(st.integers(lo, count)))):
        samples = reader.read(first, last)
        assert samples is not None
        picked = np.array([place[labels] for labels in rows[first:last]], dtype=np.int64)
        assert_same(read_rows(want, picked), samples)
        assert_same_batch(read_rows(want, picked), selection.read(first, last))
        assert_same_batch(read_rows(want, picked), read_rows(selection, np.arange(first, last)))
        assert selection.sample_bounds()[first:last].tolist() == np.diff(samples.offsets).tolist()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blocks=parts(), spans=st.lists(st.tuples(st.integers(-5, 2500), st.integers(0, 3000)), max_size=4))
def test_rows_that_are_kept_decoded_are_those_of_the_blocks(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[list[Row]], spans: list[tuple[int, int]]
) -> None:
    opened = blocks_of(tmp_path_factory.mktemp("blocks"), blocks)
    joins, decoded = BlockJoins(BlockCache()), DecodedRuns()
    for mint, length in [(-5, 4000), (-5, 4000), *spans]:
        kept = joined(opened, mint, mint + length, joins, decoded)
        plain = joined(opened, mint, mint + length, joins)
        assert kept is not None
        assert plain is not None
        count = len(plain.labels)
        assert kept.labels.rows() == plain.labels.rows()
        for lo, hi in ((0, count), (count // 2, count)):
            assert_same_batch(plain.read(lo, hi), kept.read(lo, hi))
    assert decoded.cache.misses == 1
    assert decoded.cache.used > 8 * sum(len(row.floats) for part in blocks for row in part)


def test_what_is_read_once_or_in_part_or_is_large_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.fill(3, T0, 100, step=60_000)
    store.db.maintenance.cut_head(T0 + 2 * HOUR)
    decoded, whole = store.db.block_set.decoded, (T0, T0 + 2 * HOUR)
    for _ in range(3):
        store.db.querier().select((), T0, T0 + HOUR // 2)
    store.db.querier().select((), *whole)
    assert len(decoded.cache) == 0
    monkeypatch.setattr(decodedruns, "SAMPLES_MAX", 299)
    store.db.querier().select((), *whole)
    assert len(decoded.cache) == 0
    monkeypatch.undo()
    store.db.querier().select((), *whole)
    assert len(decoded.cache) == 1
    assert store.metric("vedette_tsdb_decoded_cache_bytes") == decoded.cache.used > 2400
    assert store.metric("vedette_tsdb_decoded_cache_limit_bytes") == decodedruns.DECODED_BYTES
    labels = store.db.querier().select((), *whole).labels
    assert labels.memo is store.db.querier().select((), *whole).labels.memo is not None
    store.db.block_set.swap([], store.db.blocks())
    assert len(decoded.cache) == 0
    store.db.close()


def test_a_damaged_page_does_not_stop_reads_that_need_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.fill(3, T0, 300, step=60_000)
    for end in (2, 4):
        store.db.maintenance.cut_head(T0 + end * HOUR)
    _, second = (each.block for each in store.db.blocks())
    want = store.db.querier().select((), T0, T0 + 4 * HOUR).read(0, 3)

    plain = ColumnsFile.page

    def page(columns: ColumnsFile, kind: int, number: int, at_once: bool = False) -> np.ndarray:
        if columns is second.columns:
            raise CorruptionError("a page does not match its checksum")
        return plain(columns, kind, number, at_once)

    monkeypatch.setattr(ColumnsFile, "page", page)
    for _ in range(2):
        with pytest.raises(CorruptionError):
            store.db.querier().select((), T0, T0 + 4 * HOUR).read(0, 3)
        found = store.db.querier().select((), T0, T0 + 2 * HOUR - 1).read(0, 3)
        early = want.t_ms < T0 + 2 * HOUR
        assert found.values.tolist() == want.values[early].tolist()
    store.db.close()


def test_a_block_and_the_head_are_read_as_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add([(name(7), T0 + 5 * k * 1000, k / 10) for k in range(300)])
    store.fill(3, T0, 150, step=60_000)
    store.db.maintenance.cut_head(T0 + 2 * HOUR)
    store.add([(name(i), T0 + 3 * HOUR + k * 1000, -0.0) for k in range(9) for i in (1, 7, 9)])
    selection = store.db.querier().select((), T0 + 30_000, T0 + 4 * HOUR)
    reader = shared_rows_of(selection)
    assert reader is not None
    count = len(selection.labels)
    assert count == 5
    whole = reader.read(0, count)
    assert whole is not None
    column = dict(zip(selection.labels.rows(), whole.column.tolist(), strict=True))
    assert column[name(0)] == column[name(2)]
    assert len({column[name(0)], column[name(1)], column[name(7)], column[name(9)]}) == 4
    # The last row is in the head only, the first in the block only.
    for lo, hi in ((0, count), (1, 3), (count - 1, count)):
        samples = reader.read(lo, hi)
        assert samples is not None
        rows = np.arange(lo, hi)
        # `read_rows` asks the other selection, which merges.
        assert_same(read_rows(selection, rows), samples)
    store.db.close()


def test_late_samples_under_a_block_are_left_to_read(tmp_path: Path) -> None:
    store = Store(tmp_path, replace(OPTIONS, out_of_order_window_ms=4 * HOUR))
    store.fill(2, T0, 150, step=60_000)
    store.db.maintenance.cut_head(T0 + 2 * HOUR)
    store.add([(name(0), T0 + 1, 5.0)])
    selection = store.db.querier().select((), T0, T0 + 4 * HOUR)
    reader = shared_rows_of(selection)
    assert reader is not None
    assert reader.read(0, 1) is None
    samples = reader.read(1, 2)
    assert samples is not None
    assert_same(read_rows(selection, np.array([1])), samples)
    late = selection.read(0, 1)
    assert late.t_ms[:2].tolist() == [T0, T0 + 1]
    assert late.values[1] == 5.0
    store.db.close()


def test_histograms_start_times_and_many_timestamps_are_left_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = Labels.from_dict({"__name__": "m"})
    started = blocks_of(tmp_path, [[Row(labels, [FloatSample(5, 0, 3)])]])
    assert joined(started, 0, 99) is None
    plain = blocks_of(tmp_path, [[Row(labels, [FloatSample(5, 0), FloatSample(6, 0)])]])
    assert joined(plain, 0, 99) is not None
    monkeypatch.setattr(blockjoin, "VECTOR_SAMPLES_MAX", 1)
    assert joined(plain, 0, 99) is None


def test_columns_are_numbered_through_the_pieces_of_a_selection(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for k in range(150):
        store.add([(name(i), T0 + 1000 * (60 * k + i % 2), k / 10) for i in range(12)])
    store.db.maintenance.cut_head(T0 + 2 * HOUR)
    store.add([(name(i), T0 + 3 * HOUR + k, 0.5) for k in range(9) for i in range(0, 12, 3)])
    selection = store.db.querier().select((), T0, T0 + 4 * HOUR)
    reader = shared_rows_of(selection)
    assert reader is not None
    whole = reader.read_values(0, 12)
    assert whole is not None
    assert whole.numbered is None
    numbers, times = ColumnNumbers(9), dict[int, list[int]]()
    for lo, hi in ((0, 5), (5, 6), (6, 12)):
        rows = reader.read_values(lo, hi)
        assert rows is not None
        assert rows.numbered is not None
        found, timed = rows.numbered(numbers), rows.timed().batch()
        assert found is not None
        assert found.first == len(times)
        for a, b in itertools.pairwise(found.offsets.tolist()):
            times[len(times)] = found.t_ms[a:b].tolist()
        for row, (a, b) in enumerate(itertools.pairwise(timed.offsets.tolist())):
            assert times[int(found.column[row])] == timed.t_ms[a:b].tolist()
    assert len(times) == numbers.count == 4
    store.db.close()


@given(
    kinds=st.lists(st.integers(0, 2), max_size=30),
    heads=st.lists(st.lists(st.integers(0, 1), max_size=2), min_size=30, max_size=30),
)
@settings(max_examples=80, deadline=None)
def test_rows_share_a_column_where_all_their_times_are_equal(
    kinds: list[int], heads: list[list[int]]
) -> None:
    count = len(kinds)
    lengths = [len(head) for head in heads[:count]]
    hi = np.cumsum(lengths, dtype=np.int64)
    flat = np.array([t for head in heads[:count] for t in head], dtype=np.int64)
    older, owners, column = (np.empty(count, dtype=np.int64) for _ in range(3))
    columns = kernels.share_columns(
        np.array(kinds, dtype=np.int64), hi - np.array(lengths, dtype=np.int64), hi, flat,
        np.full(3, -1, dtype=np.int64), older, owners, column,
    )  # fmt: skip
    keys = [(kind, tuple(head)) for kind, head in zip(kinds, heads, strict=False)]
    assert [keys[owners[c]] for c in column] == keys
    assert columns == len(set(keys))


@given(data=st.data(), blocks=st.lists(st.integers(0, 3), max_size=8))
@settings(max_examples=80, deadline=None)
def test_rows_are_laid_out_with_the_head_behind_the_blocks(data: st.DataObject, blocks: list[int]) -> None:
    rows = len(blocks)
    here = data.draw(st.permutations(range(rows)))[: data.draw(st.integers(0, rows))]
    heads = [sorted(data.draw(st.sets(st.integers(0, 20), max_size=3))) for _ in here]
    last_ms = data.draw(st.integers(-1, 5))
    head_lo, head_hi, places = (np.full(rows, -7, dtype=np.int64) for _ in range(3))
    offsets = np.full(rows + 1, -7, dtype=np.int64)
    refused = kernels.place_rows(
        np.array(blocks, dtype=np.int64), np.array(here, dtype=np.int64) + 100, 100,
        np.cumsum([0, *map(len, heads)]).astype(np.int64),
        np.array([t for head in heads for t in head], dtype=np.int64), last_ms,
        head_lo, head_hi, places, offsets,
    )  # fmt: skip
    assert refused == int(any(head[0] <= last_ms for head in heads if head))
    if refused:
        return
    of_row = dict(zip(here, heads, strict=True))
    counts = [count + len(of_row.get(row, [])) for row, count in enumerate(blocks)]
    assert offsets.tolist() == np.cumsum([0, *counts]).tolist()
    assert (head_hi - head_lo).tolist() == [len(of_row.get(row, [])) for row in range(rows)]
    assert (places - offsets[:-1]).tolist() == blocks


@given(
    runs=st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=8),
    data=st.data(),
)
@settings(max_examples=80, deadline=None)
def test_rows_with_unlike_vectors_are_told_apart(runs: list[list[int]], data: st.DataObject) -> None:
    offsets = np.cumsum([0, *map(len, runs)]).astype(np.int64)
    rows = np.repeat(np.arange(len(runs)), np.diff(offsets))
    vectors = np.array([v for row in runs for v in row], dtype=np.int64)
    keys = np.zeros(len(runs), dtype=np.uint64)
    kernels.mix_vectors(rows, vectors, keys)
    assert len(set(keys.tolist())) == len(set(map(tuple, runs)))
    twin = data.draw(st.lists(st.integers(0, len(runs) - 1), min_size=len(runs), max_size=len(runs)))
    same = kernels.same_vectors(offsets, vectors, np.array(twin, dtype=np.int64))
    assert same == int(all(runs[row] == runs[other] for row, other in enumerate(twin)))


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from([100, 20_000, 300_000, 2_000_000])), max_size=40
    )
)
@settings(max_examples=40, deadline=None)
def test_scratch_that_is_in_use_is_not_given_out_again(steps: list[tuple[int, int]]) -> None:
    held: dict[int, np.ndarray] = {}
    for mark, (slot, count) in enumerate(steps):
        held.pop(slot, None)
        array = scratch(count, np.int64)
        assert array.shape == (count,)
        array[:] = mark
        # A view of a view must hold the memory as well.
        held[slot] = array.view(np.uint64)[1:]
        del array
        for kept in held.values():
            assert (kept == kept[0]).all()


def test_scratch_is_used_again_once_nobody_has_it() -> None:
    forget()
    first = scratch(SMALL_BYTES, np.float64)
    place = first.ctypes.data
    other = scratch(SMALL_BYTES, np.float64)
    assert other.ctypes.data != place
    del first
    assert scratch(SMALL_BYTES, np.int64).ctypes.data == place
