"""Columns have one number in all pieces of a selection, as a dictionary would give."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdb.columnnumbers import ColumnNumbers
from tsdb.kernels.sharedrows import CANDIDATES_MAX

rows = st.tuples(st.integers(0, 2), st.lists(st.integers(0, 2), max_size=2).map(tuple))


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(st.lists(rows, max_size=12), max_size=5), columns_max=st.integers(1, 30))
def test_numbers_are_those_of_a_dictionary(
    pieces: list[list[tuple[int, tuple[int, ...]]]], columns_max: int
) -> None:
    numbers, known = ColumnNumbers(columns_max), dict[tuple[int, tuple[int, ...]], int]()
    full = False
    for piece in pieces:
        lengths = [len(head) for _, head in piece]
        hi = np.cumsum(lengths, dtype=np.int64)
        lo, kinds = (
            hi - np.array(lengths, dtype=np.int64),
            np.array([kind for kind, _ in piece], dtype=np.int64),
        )
        flat = np.array([t for _, head in piece for t in head], dtype=np.int64)
        found = numbers.of(kinds, 3, lo, hi, flat)
        fresh = []
        for at, row in enumerate(piece):
            if row not in known:
                full |= len(known) == columns_max
                full |= sum(kind == row[0] for kind, _ in known) == CANDIDATES_MAX
                known[row] = len(known)
                fresh.append(at)
        assert (found is None) == full == numbers.is_full
        if found is None:
            return
        column, owners = found
        assert column.tolist() == [known[row] for row in piece]
        assert owners.tolist() == fresh
