"""The head against its slow twin: judging, storing, reading, truncating."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.reference.head import ReferenceHead, ReferenceSeries, chunk_lengths
from tsdb.columns import Rejected
from tsdb.head import NO_HINTS, Head
from tsdb.kernels import append as k
from tsdb.labels import Labels, Matcher, MatchType
from tsdb.select import STALE_BITS, SelectHints
from tsdb.series import SLOT_MASK
from tsdb.symbols import SymbolTable

T0 = 1_700_006_400_000
HOUR = 3600_000
SERIES = 4
SEEDS = (0x1234567890ABCDEF, 0xFEDCBA0987654321)
SERIES_LIMIT = 4096


def labels(i: int) -> Labels:
    return Labels.from_dict({"__name__": "m", "i": str(i)})


def make_head(window: int = HOUR, series: int = SERIES) -> tuple[Head, np.ndarray]:
    head = Head(SymbolTable(), SEEDS, late_window_ms=window, series_limit=SERIES_LIMIT)
    refs, _ = head.find_or_create([labels(i) for i in range(series)])
    return head, refs


def append(head: Head, rows: list[tuple[int, int, int]], now: int, atomic: bool = False) -> list[int]:
    """Rows are (ref, t, bits)."""
    refs = np.array([r[0] for r in rows], dtype=np.uint32)
    t = np.array([r[1] for r in rows], dtype=np.int64)
    bits = np.array([r[2] for r in rows], dtype=np.uint64)
    rules = head.rules(now, min(int(t[0]), now))
    codes, undo = head.admit(refs, t, bits, rules)
    public = np.where(codes >= k.COMPARE, 0, codes).tolist()
    if atomic and any(public):
        head.retract(refs, codes, undo)
    else:
        head.store(refs, t, bits, codes)
    return public


def read(
    head: Head, i: int, mint: int = -(2**62), maxt: int = 2**62, hints: SelectHints = NO_HINTS
) -> list[tuple[int, int]]:
    selection = head.select([Matcher(MatchType.EQUAL, "i", str(i))], mint, maxt, hints)
    if not len(selection.labels):
        return []
    batch = selection.read(0, 1)
    return list(zip(batch.t_ms.tolist(), batch.values.view(np.uint64).tolist(), strict=True))


times = st.one_of(
    st.integers(-20, 600).map(lambda n: T0 + n * 15_000),
    st.integers(-2 * HOUR, 3 * HOUR).map(lambda n: T0 + n),
)
bits = st.sampled_from([0, 0x3FF0000000000000, 0x4000000000000000, STALE_BITS, 0x8000000000000000])
rows = st.lists(st.tuples(st.integers(0, SERIES - 1), times, bits), min_size=1, max_size=40)
steps = st.lists(st.tuples(rows, st.booleans(), st.integers(-1, 3)), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps, st.sampled_from([0, 10 * 60_000, HOUR]), st.integers(0, 500), st.integers(0, 500))
def test_head_judges_and_stores_as_the_slow_twin(batches, window, a, b):
    head, refs = make_head(window)
    twin = ReferenceHead(window)
    twin.series = {i: ReferenceSeries() for i in range(SERIES)}
    now = T0 + HOUR
    for batch, atomic, cut in batches:
        got = append(head, [(int(refs[i]), t, v) for i, t, v in batch], now, atomic)
        assert got == twin.append(batch, now, atomic)
        now += 60_000
        if cut == 0:
            # Collection of series has its own test: only cuts that keep every series alive.
            oldest = min((s.last[0] for s in twin.series.values() if s.last), default=T0)
            oldest = oldest // (2 * HOUR) * 2 * HOUR
            if all(s.last and s.last[0] >= oldest for s in twin.series.values()):
                head.truncate(oldest)
                twin.truncate(oldest)
    oldest = -(2**62)
    lo, hi = sorted((T0 + a * 15_000, T0 + b * 15_000))
    for i in range(SERIES):
        assert read(head, i) == twin.read(i, oldest, 2**62)
        assert read(head, i, lo, hi) == twin.read(i, lo, hi)
        latest = read(head, i, lo, hi, SelectHints(latest_only=True))
        assert latest[-1:] == twin.read(i, lo, hi)[-1:]
        assert set(latest) <= set(twin.read(i, lo, hi))


def test_a_select_of_latest_samples_leaves_out_older_chunks():
    head, refs = make_head()
    for step in range(300):
        append(head, [(int(refs[0]), T0 + step * 15_000, step)], T0 + HOUR)
    whole, latest = read(head, 0), read(head, 0, hints=SelectHints(latest_only=True))
    assert latest[-1] == whole[-1]
    assert len(latest) < 10 < len(whole)


far_times = st.one_of(
    st.sampled_from([-(2**63), -(2**63) + 1, -(2**62), -1, 0, 1, 2**62, 2**62 - 1, 2**62 + 1]),
    st.integers(-(2**63), 2**62),
)
far_rows = st.lists(st.tuples(st.integers(0, SERIES - 1), far_times, bits), min_size=1, max_size=30)


@settings(max_examples=150, deadline=None)
@given(st.lists(far_rows, min_size=1, max_size=5), st.sampled_from([0, HOUR, 2**62]))
def test_times_at_the_ends_of_time_are_judged_and_kept(batches, window):
    head, refs = make_head(window)
    twin = ReferenceHead(window)
    twin.series = {i: ReferenceSeries() for i in range(SERIES)}
    for batch in batches:
        got = append(head, [(int(refs[i]), t, v) for i, t, v in batch], 2**62)
        assert got == twin.append(batch, 2**62, False)
    for i in range(SERIES):
        assert read(head, i, -(2**63), 2**63 - 1) == twin.read(i, -(2**63), 2**63 - 1)


# name, window, samples before (ref, t, bits), sample, expected code
RULES = [
    ("an older sample is out of order", 0, [(0, T0, 1)], (0, T0 - 1, 1), Rejected.OUT_OF_ORDER),
    (
        "an hour behind the head is out of bounds",
        0,
        [(0, T0, 1)],
        (1, T0 - HOUR - 1, 1),
        Rejected.OUT_OF_BOUNDS,
    ),
    ("a new series may start an hour behind", 0, [(0, T0, 1)], (1, T0 - HOUR, 1), Rejected.NO),
    ("the same sample again is accepted", 0, [(0, T0, 1)], (0, T0, 1), Rejected.NO),
    ("another value for the newest time is a duplicate", 0, [(0, T0, 1)], (0, T0, 2), Rejected.DUPLICATE),
    ("eleven minutes ahead is out of bounds", 0, [(0, T0, 1)], (0, T0 + 660_000, 1), Rejected.OUT_OF_BOUNDS),
    ("ten minutes ahead is accepted", 0, [(0, T0, 1)], (0, T0 + 600_000, 1), Rejected.NO),
    ("late within the window is accepted", HOUR, [(0, T0, 1)], (0, T0 - HOUR, 1), Rejected.NO),
    ("late beyond the window is too old", HOUR, [(0, T0, 1)], (0, T0 - HOUR - 1, 1), Rejected.TOO_OLD),
    ("a stale marker equals itself", 0, [(0, T0, STALE_BITS)], (0, T0, STALE_BITS), Rejected.NO),
]


@pytest.mark.parametrize(
    ("window", "before", "sample", "code"), [r[1:] for r in RULES], ids=[r[0] for r in RULES]
)
def test_rules_of_time(window, before, sample, code):
    head, refs = make_head(window)
    append(head, [(int(refs[i]), t, v) for i, t, v in before], T0)
    assert append(head, [(int(refs[sample[0]]), *sample[1:])], T0) == [code]


def test_atomic_append_of_a_bad_batch_leaves_no_trace():
    head, refs = make_head(0)
    ref = int(refs[0])
    append(head, [(ref, T0, 1)], T0)
    assert append(head, [(ref, T0 + 1, 2), (ref, T0 + 2, 3), (ref, T0 + 1, 9)], T0, atomic=True)[2] != 0
    assert read(head, 0) == [(T0, 1)]
    assert append(head, [(ref, T0 + 1, 5)], T0) == [0]


def test_a_long_series_is_cut_into_chunks_and_read_back_whole():
    head, refs = make_head()
    samples = [(T0 + n * 7_000, (n * n) ^ 0x3FF0000000000000) for n in range(2000)]
    for at in range(0, 2000, 250):
        append(head, [(int(refs[0]), t, v) for t, v in samples[at : at + 250]], samples[-1][0])
    assert read(head, 0) == samples
    assert read(head, 0, samples[500][0], samples[700][0]) == samples[500:701]
    assert int(head.counters[k.SEALED_END]) > 2000 // 120


def sealed_lengths(head: Head, slot: int) -> list[int]:
    """Samples of the sealed chunks of a series, oldest first."""
    found, at = [], int(head.rows[slot, k.CHAINS]) & 0xFFFFFFFF
    while at:
        found.append(int(head.sealed[at, k.SEALED_PLACE]) >> 56)
        at = int(head.sealed[at, k.SEALED_LINK]) >> 32
    return found[::-1]


gaps = st.lists(
    st.tuples(st.integers(1, 90), st.sampled_from([1, 15_000, 60_000, 2 * HOUR - 1, 2 * HOUR, 2**32])),
    min_size=1,
    max_size=8,
)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), gaps, st.integers(-3, 3))
def test_chunks_close_where_the_twin_closes_them(slot, steps, start):
    head, refs = make_head(series=slot)
    times = [start * HOUR]
    for count, gap in steps:
        times += [times[-1] + gap * (n + 1) for n in range(count)]
    append(head, [(int(refs[-1]), t, n) for n, t in enumerate(times)], 2**62)
    lengths = sealed_lengths(head, slot)
    assert lengths == chunk_lengths(slot, times, 2 * HOUR)[: len(lengths)]
    open_samples = int(head.rows[slot, k.CHUNK]) >> 32 & 0xFF
    assert sum(lengths) + open_samples + (int(head.rows[slot, k.META]) & k.TAIL_MASK) == len(times)


def test_open_chunks_of_series_that_began_together_are_not_full_together():
    head, refs = make_head(series=400)
    count = len(refs)
    for n in range(480):
        append(head, [(int(ref), T0 + 15_000 * n, n) for ref in refs], T0 + 15_000 * n)
        if n >= 120 and n % 40 == 0:
            open_samples = head.rows[1 : count + 1, k.CHUNK] >> np.uint64(32) & np.uint64(0xFF)
            assert open_samples.mean() < 72


def test_a_selection_does_not_change_when_samples_are_appended_after_it():
    head, refs = make_head()
    append(head, [(int(refs[0]), T0 + n, n) for n in range(100)], T0)
    selection = head.select([Matcher(MatchType.EQUAL, "i", "0")], T0, T0 + 10**6)
    append(head, [(int(refs[0]), T0 + n, n) for n in range(100, 500)], T0)
    assert len(selection.read(0, 1).t_ms) == 100


def test_series_without_samples_left_are_collected_and_their_refs_refused():
    head, refs = make_head(0)
    append(head, [(int(refs[0]), T0, 1), (int(refs[1]), T0, 1)], T0)
    later = T0 + 4 * HOUR
    append(head, [(int(refs[0]), later, 1)], later)
    # Series 2 and 3 have no sample and were just created: they may belong to a request on its way.
    assert head.truncate(T0 + 2 * HOUR) == 1
    assert append(head, [(int(refs[1]), later, 1)], later) == [Rejected.UNKNOWN_SERIES]
    again, new = head.find_or_create([labels(1)])
    assert new is not None
    assert int(again[0]) != int(refs[1])
    assert append(head, [(int(again[0]), later, 7)], later) == [0]
    assert read(head, 1) == [(later, 7)]
    assert read(head, 0) == [(later, 1)]
    assert head.truncate(T0 + 2 * HOUR) == 2


def test_a_reused_slot_gets_another_generation():
    head, refs = make_head(0, series=1)
    slot = int(refs[0]) & SLOT_MASK
    append(head, [(int(refs[0]), T0, 1)], T0)
    assert head.truncate(T0 + 1) == 1
    for i in range(1, 300):
        again, _ = head.find_or_create([labels(i)])
        if int(again[0]) & SLOT_MASK == slot:
            break
    assert int(again[0]) != int(refs[0])
    assert append(head, [(int(refs[0]), T0 + HOUR, 1)], T0 + HOUR) == [Rejected.UNKNOWN_SERIES]


def test_memory_of_open_chunks_is_given_back_by_truncation():
    head, refs = make_head(0)
    for n in range(200):
        append(head, [(int(ref), T0 + n * 15_000, n * 7919) for ref in refs], T0 + HOUR)
    used = int(head.counters[k.SLAB_END]) - int(head.counters[k.SLAB_FREE])
    head.truncate(T0 + 10 * HOUR)
    assert used > 1
    assert int(head.counters[k.SLAB_END]) - int(head.counters[k.SLAB_FREE]) == 1
    assert head.chunk_count() == 0


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 119, 120, 121, 128, 129, 241])
def test_any_number_of_samples_is_read_back(count):
    head, refs = make_head()
    samples = [(T0 + n * 1000, n) for n in range(count)]
    for sample in samples:
        append(head, [(int(refs[0]), *sample)], T0 + HOUR)
    assert read(head, 0) == samples
