"""Distinct values are those that numpy finds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tsdb.distinct import distinct


@given(st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 5)))
def test_distinct_values_are_those_of_numpy(numbers: list[int]) -> None:
    values = np.array(numbers, dtype=np.uint32)
    before = values.copy()
    found = distinct(values)
    assert found.dtype == np.uint32
    assert found.tolist() == np.unique(values).tolist()
    assert values.tolist() == before.tolist()
