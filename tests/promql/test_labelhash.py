"""Hashes of label sets against the xxhash library."""

from __future__ import annotations

import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from promql.operators.labelcolumns import label_hashes
from tests.reference.interpreteraggregate import layout
from tsdb.labels import Labels
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import SymbolTable

TEXTS = st.text(max_size=40) | st.integers(250, 300).map(lambda n: "é" * (n // 2) + "x" * (n % 2))
LABEL_SETS = st.dictionaries(TEXTS.filter(bool), TEXTS.filter(bool), max_size=4).map(Labels.from_dict)


@settings(max_examples=80, deadline=None)
@example(rows=[Labels(), Labels.from_dict({"a": "x" * 70_000})])
@given(rows=st.lists(LABEL_SETS, min_size=1, max_size=6))
def test_rows_hash_as_the_library_hashes_their_bytes(rows: list[Labels]) -> None:
    got = label_hashes(SeriesLabels.from_labels(rows, SymbolTable())).tolist()
    assert got == [xxhash.xxh64_intdigest(layout(row)) for row in rows]
