"""Columns of label sets against lists of `Labels`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.labels import filter_labels, group_labels, sort_labels
from tsdb import serieslabels
from tsdb.labels import Labels
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import OverlaySymbols, SymbolTable

NAMES = ["__name__", "a", "b", "é", "instance", "job", "le", "zone", "A", "c", "d", "e"]
label_sets = st.dictionaries(
    st.sampled_from(NAMES), st.sampled_from(["", "0", "1", "x", "xy", "ü", "Z", "a\n"]), max_size=6
).map(Labels.from_dict)
row_lists = st.lists(label_sets, max_size=40)
name_lists = st.lists(st.sampled_from([*NAMES, "unknown"]), max_size=12, unique=True)


def columns(rows: list[Labels]) -> SeriesLabels:
    return SeriesLabels.from_labels(rows, SymbolTable())


@settings(max_examples=150, deadline=None)
@given(rows=row_lists, names=name_lists, keep=st.booleans())
def test_filter_group_and_hash_agree_with_the_slow_twin(
    rows: list[Labels], names: list[str], keep: bool
) -> None:
    labels = columns(rows)
    filtered = filter_labels(rows, names, keep)
    assert labels.filter_names(names, keep).rows() == filtered
    ids, groups = labels.group_ids(names, without=not keep)
    want_ids, want_groups = group_labels(rows, names, keep)
    assert ids.tolist() == want_ids
    assert groups.rows() == want_groups
    hashes = labels.row_hashes(names, keep).tolist()
    assert len(set(hashes)) == len(set(want_ids))
    assert [hashes[want_ids.index(g)] for g in want_ids] == hashes


@settings(max_examples=150, deadline=None)
@given(rows=row_lists)
def test_sort_order_is_that_of_label_text(rows: list[Labels]) -> None:
    assert columns(rows).sort_order().tolist() == sort_labels(rows)
    # Texts that a query made up are sorted by rank.
    assert SeriesLabels.from_labels(rows, OverlaySymbols(SymbolTable())).sort_order().tolist() == (
        sort_labels(rows)
    )


@settings(max_examples=100, deadline=None)
@given(rows=row_lists, data=st.data())
def test_take_column_and_equality_follow_rows(rows: list[Labels], data: st.DataObject) -> None:
    labels = columns(rows)
    picks = data.draw(st.lists(st.integers(0, max(0, len(rows) - 1)), max_size=20)) if rows else []
    assert labels.take(np.array(picks, dtype=np.int64)).rows() == [rows[i] for i in picks]
    for name in NAMES:
        texts = labels.symbols.texts(labels.column(name))
        assert texts == [row.get(name) for row in rows]
    back = picks[::-1]
    equal = labels.rows_equal(np.array(picks, dtype=np.int64), labels, np.array(back, dtype=np.int64))
    assert equal.tolist() == [rows[i] == rows[j] for i, j in zip(picks, back, strict=True)]


@settings(max_examples=50, deadline=None)
@given(parts=st.lists(row_lists, max_size=4))
def test_concat_keeps_the_rows_of_every_part(parts: list[list[Labels]]) -> None:
    symbols = SymbolTable()
    joined = SeriesLabels.concat([SeriesLabels.from_labels(p, symbols) for p in parts], symbols)
    assert joined.rows() == [row for part in parts for row in part]


def test_sorting_many_rows_passes_every_merge_width() -> None:
    rng = np.random.default_rng(7)
    rows = [Labels.from_dict({"a": str(rng.integers(50)), "b": str(rng.integers(50))}) for _ in range(3000)]
    assert columns(rows).sort_order().tolist() == sort_labels(rows)


def test_more_rows_than_are_sorted_by_text_are_sorted_by_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serieslabels, "SORTED_BY_TEXT_MAX", 3)
    rows = [Labels.from_dict({"a": text}) for text in ("b", "ab", "a", "é", "B")]
    assert columns(rows).sort_order().tolist() == sort_labels(rows)


def test_row_out_of_range_is_refused() -> None:
    with pytest.raises(IndexError, match="2 series"):
        columns([Labels(), Labels()]).take(np.array([2]))


def test_overlay_symbols_group_with_those_of_the_store() -> None:
    base = SymbolTable()
    SeriesLabels.from_labels([Labels.from_dict({"a": "1"})], base)
    overlay = OverlaySymbols(base)
    rows = [Labels.from_dict({"a": v}) for v in ("2", "1", "2")]
    labels = SeriesLabels.from_labels(rows, overlay)
    assert labels.rows() == rows
    assert labels.group_ids(["a"], without=False)[0].tolist() == [0, 1, 0]
    assert len(base) == 3
