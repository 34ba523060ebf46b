"""Kernels that read rows ahead of those that need them, beside their slow twin."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.rowtouch import touched
from tsdb.kernels.append import ROW_WORDS, SLAB_SHIFT, SLABS, SLOT_MASK
from tsdb.kernels.rowtouch import touch_rows, touch_series


@settings(max_examples=100, deadline=None)
@given(
    refs=st.lists(st.integers(0, 12) | st.integers(0, 2**32 - 1) | st.just(SLOT_MASK), max_size=30),
    slots=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_touching_reads_each_series_row_and_changes_nothing(refs: list[int], slots: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    series = random.integers(0, 2**64, (slots, ROW_WORDS), dtype=np.uint64)
    slab_count = 5
    last = random.integers(0, slab_count, slots, dtype=np.uint64)
    series[:, SLABS] = last << np.uint64(32) | random.integers(0, slab_count, slots, dtype=np.uint64)
    slabs = random.integers(0, 256, slab_count << SLAB_SHIFT, dtype=np.uint8)
    slab_next = random.integers(0, 2**32, slab_count, dtype=np.uint32)
    rows = series, slabs, slab_next
    before = [array.copy() for array in rows]
    wanted = np.array(refs, dtype=np.uint32)
    plain = [array.tolist() for array in rows]
    assert int(touch_rows(wanted, series)) == touched(refs, plain[0])
    assert int(touch_series(wanted, *rows)) == touched(refs, *plain)
    assert all(np.array_equal(old, new) for old, new in zip(before, rows, strict=True))
