"""Merged selections against a merge over dictionaries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.merge import merge_rows
from tests.tsdb.memoryselection import FloatSample, MemorySelection, Row, all_rows, bits_of, rows_of
from tests.tsdb.samplestrategies import rows
from tsdb.labels import Labels
from tsdb.mergeselect import merge_selections
from tsdb.samplerows import clip_samples, read_rows
from tsdb.select import work_bounds_of
from tsdb.symbols import SymbolTable

A = Labels.from_dict({"__name__": "a"})
B = Labels.from_dict({"__name__": "b"})


def series(labels: Labels, *samples: tuple[int, float]) -> Row:
    return Row(labels, [FloatSample(t, bits_of(v)) for t, v in samples])


@settings(max_examples=120, deadline=None)
@given(sources=st.lists(rows(), min_size=1, max_size=4))
def test_merge_agrees_with_the_slow_twin(sources: list[list[Row]]) -> None:
    symbols = SymbolTable()
    merged = merge_selections([MemorySelection(source, symbols) for source in sources])
    assert all_rows(merged) == merge_rows(sources)
    assert work_bounds_of(merged).tolist() == merged.sample_bounds().tolist()
    counts = [len(r.floats) + len(r.histograms) for r in all_rows(merged).values()]
    assert all(n <= bound for n, bound in zip(counts, merged.sample_bounds().tolist(), strict=True))


@settings(max_examples=50, deadline=None)
@given(sources=st.lists(rows(), min_size=2, max_size=3), data=st.data())
def test_any_rows_and_any_split_give_the_same_samples(sources: list[list[Row]], data: st.DataObject) -> None:
    symbols = SymbolTable()
    merged = merge_selections([MemorySelection(source, symbols) for source in sources])
    labels, want = merged.labels.rows(), all_rows(merged)
    count = len(labels)
    cut = data.draw(st.integers(0, count))
    halves = rows_of(labels[:cut], merged.read(0, cut)) + rows_of(labels[cut:], merged.read(cut, count))
    assert {row.labels: row for row in halves} == want
    picks = data.draw(st.permutations(range(count)))
    shuffled = rows_of([labels[i] for i in picks], read_rows(merged, np.array(picks, dtype=np.int64)))
    assert {row.labels: row for row in shuffled} == want


@settings(max_examples=100, deadline=None)
@given(source=rows(), mint=st.integers(-30, 70), length=st.integers(-1, 60))
def test_clipping_keeps_the_samples_inside_the_bounds(source: list[Row], mint: int, length: int) -> None:
    symbols = SymbolTable()
    clipped = clip_samples(MemorySelection(source, symbols).read(0, len(source)), mint, mint + length)
    want = MemorySelection(source, symbols, mint, mint + length).rows
    assert rows_of([row.labels for row in source], clipped) == want


def test_first_source_wins_at_equal_times() -> None:
    symbols = SymbolTable()
    first = MemorySelection([series(A, (1, 1.0), (3, 3.0))], symbols)
    second = MemorySelection([series(B, (1, 5.0)), series(A, (1, 9.0), (2, 2.0))], symbols)
    merged = all_rows(merge_selections([first, second]))
    assert merged[A] == series(A, (1, 1.0), (2, 2.0), (3, 3.0))
    assert merged[B] == series(B, (1, 5.0))


def test_one_filled_source_is_given_back_itself() -> None:
    symbols = SymbolTable()
    only = MemorySelection([series(A, (1, 1.0))], symbols)
    assert merge_selections([MemorySelection([], symbols), only]) is only


def test_no_source_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        merge_selections([])


@settings(max_examples=80, deadline=None)
@given(sources=st.lists(rows(), min_size=2, max_size=4), with_histograms=st.booleans())
def test_sources_one_after_the_other_in_time_are_chained(
    sources: list[list[Row]], with_histograms: bool
) -> None:
    for k, source in enumerate(sources):
        for row in source:
            later = 1_000_000 * ((k * 2) % 3)
            row.floats = [s._replace(t_ms=s.t_ms + later) for s in row.floats]
            row.histograms = [s._replace(t_ms=s.t_ms + later) for s in row.histograms if with_histograms]
    symbols = SymbolTable()
    merged = merge_selections([MemorySelection(source, symbols) for source in sources])
    assert all_rows(merged) == merge_rows(sources)
