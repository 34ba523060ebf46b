"""The append in one kernel does what its steps do one after the other, or leaves the batch to them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tsdb.test_head import SERIES, T0, bits, make_head
from tests.tsdb.test_walcodec import encoded
from tsdb.head import LOG_SAMPLES_KEPT, Head, LogBuffers
from tsdb.kernels import append as k
from tsdb.kernels.appendbatch import CODED_SIZE, LOGGED, NEWEST_T, REFS_SIZE, STORED, TIMES_SIZE, UNUSUAL

SEGMENT = 3
NOW = 2**62
# Most batches are in order; some repeat a sample, some have one that is late, refused or unknown.
steps = st.lists(
    st.tuples(st.integers(0, SERIES), st.sampled_from([15_000] * 12 + [0, -60_000]), bits),
    min_size=1,
    max_size=40,
)


def rows_of(head: Head) -> list:
    used = head.series.slots_used
    arrays = (head.rows[:used], head.slabs[: int(head.counters[k.SLAB_END]) * k.SLAB_BYTES])
    return [array.tolist() for array in (*arrays, head.counters)]


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, min_size=1, max_size=12))
def test_a_batch_is_stored_and_coded_as_by_the_single_steps(batches):
    (one, refs), (other, _) = make_head(), make_head()
    known = [*(int(ref) for ref in refs), 99]
    log, t = LogBuffers(), dict.fromkeys(range(SERIES + 1), T0)
    for batch in batches:
        rows = []
        for i, step, value in batch:
            t[i] += step
            rows.append((known[i], t[i], value))
        columns = [np.array([row[at] for row in rows]) for at in range(3)]
        batch_refs, times, values = (
            column.astype(kind)
            for column, kind in zip(columns, (np.uint32, np.int64, np.uint64), strict=True)
        )
        rules = one.rules(NOW, int(times[0]))
        codes, undo = one.append_plain(batch_refs, times, values, rules, SEGMENT, log)
        expected, expected_undo = other.admit(batch_refs, times, values, rules)
        assert codes.tolist() == expected.tolist()
        outcome = log.outcome.tolist()
        plain = set(expected.tolist()) <= {k.ACCEPTED, k.REPEATED}
        assert (outcome[STORED] == UNUSUAL) is not plain
        count, parts = encoded(batch_refs, times, values, expected, k.ACCEPTED, expected_undo, other.rows)
        if plain:
            a, b, c = (outcome[at] for at in (REFS_SIZE, TIMES_SIZE, CODED_SIZE))
            keys = log.keys[: a + b].tobytes()
            assert [keys[:a], keys[a:], log.coded[:c].tobytes()] == parts
            assert (outcome[LOGGED], outcome[NEWEST_T]) == (count, int(times.max()))
        else:
            encoded(batch_refs, times, values, codes, k.ACCEPTED, undo, one.rows)
            one.store(batch_refs, times, values, codes)
        other.store(batch_refs, times, values, expected)
        assert rows_of(one) == rows_of(other)


def test_a_batch_that_fills_a_segment_of_chunks_is_stored_whole_and_large_buffers_are_given_back():
    (one, refs), (other, _) = make_head(), make_head()
    log, generator, total = LogBuffers(), np.random.default_rng(1), 2_500_000
    refs = np.full(total, refs[0], dtype=np.uint32)
    times = T0 + np.arange(total, dtype=np.int64)
    values = generator.integers(0, 1 << 63, total).astype(np.uint64)
    codes, _ = one.append_plain(refs, times, values, one.rules(NOW, T0), SEGMENT, log)
    assert not codes.any()
    assert len(one.chunk_log.segments) == 2
    expected, _ = other.admit(refs, times, values, other.rules(NOW, T0))
    other.store(refs, times, values, expected)
    assert one.counters.tolist() == other.counters.tolist()
    assert len(log.keys) > LOG_SAMPLES_KEPT * 17
    one.append_plain(refs[:1], times[-1:] + 1, values[:1], one.rules(NOW, T0), SEGMENT, log)
    assert len(log.keys) <= LOG_SAMPLES_KEPT * 17
