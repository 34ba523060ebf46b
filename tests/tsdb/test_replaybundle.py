"""Bundles of the replay beside the same records stored sample by sample, and written by the slow coder."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import codedchunk
from tests.reference import walcodec as reference
from tests.tsdb.stores import HOUR, OPTIONS, Store, name
from tsdb.arena import reserve
from tsdb.errors import CorruptionError
from tsdb.head import NO_MAX_TIME, Head
from tsdb.kernels import append as k
from tsdb.kernels.bundletimes import LIST
from tsdb.kernels.walcodec import replay_samples
from tsdb.kernels.xor import CHUNK_SAMPLES
from tsdb.labels import Labels
from tsdb.replaybundle import BundleStore
from tsdb.select import STALE_BITS
from tsdb.symbols import SymbolTable
from tsdb.walrecords import SamplesPayload
from tsdb.walwindow import Bundle, read_refs_and_times

SEGMENT = 7
SERIES = 12
T0 = 1_700_006_400_000
STEPS_MS = (15_000, 15_000, 15_000, 15_001, 900_000, 8_000_000, 1, 0, -5, 1 << 33)
KINDS = ("constant", "counter", "cents", "bytes", "any", "escapes")

Sample = tuple[int, int, int]


def make_head() -> tuple[Head, np.ndarray]:
    head = Head(SymbolTable(), (1, 2), late_window_ms=0, series_limit=64)
    refs, _ = head.find_or_create([Labels.from_dict({"__name__": "m", "i": str(i)}) for i in range(SERIES)])
    return head, refs


class Writer:
    """Records of two targets as the log has them, from a seed."""

    def __init__(self, seed: int, refs: np.ndarray) -> None:
        self.rng = np.random.default_rng(seed)
        order = self.rng.permutation(refs)
        cut = int(self.rng.integers(1, SERIES))
        self.lists = [order[:cut].astype(np.uint32), order[cut:].astype(np.uint32)]
        self.kinds = {int(ref): KINDS[int(self.rng.integers(len(KINDS)))] for ref in refs}
        self.values = dict.fromkeys(self.kinds, 4096.0)
        self.states: dict[int, reference.State] = {}
        self.now = [T0, T0 + 7]
        # Some targets have one time a scrape, others a time a series.
        self.own_times = [self.rng.random() < 0.3 for _ in self.lists]

    def _value(self, ref: int) -> int:
        kind, rng = self.kinds[ref], self.rng
        if kind == "any":
            return int(rng.integers(0, 1 << 63)) * 2
        if rng.random() < 0.02:
            return STALE_BITS
        before = self.values[ref]
        if kind == "counter":
            before += int(rng.poisson(20))
        elif kind == "cents":
            before = round(before + rng.random() * 2, 2)
        elif kind == "bytes":
            before = max(before + 4096 * int(rng.integers(-64, 65)), 4096.0)
        elif kind == "escapes":
            before = float(rng.integers(0, 1 << int(rng.integers(1, 54)))) / 10.0 ** int(rng.integers(0, 8))
        self.values[ref] = before
        return reference.to_bits(before)

    def bundle(self, records: int) -> tuple[Bundle, list[Sample]]:
        parts, listed, samples = [], [], []
        for _ in range(records):
            which = int(self.rng.integers(len(self.lists)))
            step = self.rng.random() < 0.1
            self.now[which] += STEPS_MS[int(self.rng.integers(len(STEPS_MS)))] if step else 15_000
            made = []
            for ref in self.lists[which].tolist():
                late = int(self.rng.integers(0, 50)) if self.own_times[which] else 0
                made.append((ref, self.now[which] + late, self._value(ref)))
            refs, times, values = reference.encode(made, self.states)
            keys = np.frombuffer(refs + times, dtype=np.uint8)
            coded = np.frombuffer(values, dtype=np.uint8)
            parts.append(SamplesPayload(len(made), len(refs), len(times), keys, coded))
            listed.append(which)
            samples += made
        own = sorted(set(listed))
        lists = [self.lists[which] for which in own]
        bundle = Bundle.of(parts)
        bundle.records[:, LIST] = [own.index(which) for which in listed]
        return replace(bundle, lists=lists), samples


def store_singly(head: Head, bundle: Bundle, oldest: int) -> int:
    """As the replay stores what is no bundle of alike records."""
    refs, t_ms = read_refs_and_times(bundle.parts)
    bits, codes = np.empty(len(refs), dtype=np.uint64), np.empty(len(refs), dtype=np.uint8)
    kept = replay_samples(
        np.concatenate([part.coded for part in bundle.parts]),
        np.array([(part.count, len(part.coded)) for part in bundle.parts], dtype=np.int64),
        0,
        SEGMENT,
        oldest,
        head.series.slots_used,
        head.series.alive,
        head.series.generation,
        head.rows,
        reserve(np.uint64, 128).reshape(-1, 2),
        refs,
        t_ms,
        bits,
        codes,
    )
    head.store(refs, t_ms, bits, codes)
    return kept


def read(head: Head) -> dict[Labels, list[tuple[int, int]]]:
    selection = head.select((), -(2**62), 2**62)
    batch = selection.read(0, len(selection.labels))
    bits = batch.values.view(np.uint64)
    return {
        labels: list(zip(batch.t_ms[lo:hi].tolist(), bits[lo:hi].tolist(), strict=True))
        for labels, (lo, hi) in zip(selection.labels.rows(), pairwise(batch.offsets.tolist()), strict=True)
    }


NEVER = 1 << 62
"""Runs of so many samples stay as the log has them."""


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.integers(1, 6) | st.integers(20, 90) | st.just(150), min_size=1, max_size=4),
    st.sampled_from([NO_MAX_TIME, T0 + 100_000]),
    st.sampled_from([NEVER, 24, 1]),
)
def test_a_bundle_leaves_what_its_samples_leave_one_by_one(
    seed: int, sizes: list[int], oldest: int, coded_samples: int
) -> None:
    (ours, refs), (plain, _) = make_head(), make_head()
    writer, store = Writer(seed, refs), BundleStore(ours, threading.Lock(), coded_samples)
    newest: dict[int, int] = {}
    expected: dict[int, list[tuple[int, int]]] = {int(ref): [] for ref in refs}
    for size in sizes:
        bundle, samples = writer.bundle(size)
        wanted = store_singly(plain, bundle, oldest)
        assert store.take(bundle, SEGMENT, oldest) == (wanted, max(t for _, t, _ in samples))
        for ref, t, bits in samples:
            if t > newest.get(ref, NO_MAX_TIME):
                newest[ref] = t
                if t >= oldest:
                    expected[ref].append((t, bits))
    if coded_samples == NEVER:
        # Chunks that stay as the log has them end elsewhere, and have no tail.
        states = [np.delete(head.rows, [k.SLABS, k.CHAINS], axis=1) for head in (ours, plain)]
        assert np.array_equal(*states)
        assert ours.counters[k.SEALED_END] == plain.counters[k.SEALED_END]
    known = [k.LAST_T, k.LAST_V]
    assert np.array_equal(ours.rows[:, known], plain.rows[:, known])
    tail = np.uint64(k.TAIL_MASK)
    assert np.array_equal(ours.rows[:, k.META] & ~tail, plain.rows[:, k.META] & ~tail)
    figures = [k.STORED, k.MIN_T, k.MAX_T]
    assert ours.counters[figures].tolist() == plain.counters[figures].tolist()
    found = read(ours)
    assert found == read(plain)
    numbers = {Labels.from_dict({"__name__": "m", "i": str(i)}): int(ref) for i, ref in enumerate(refs)}
    assert found == {labels: expected[ref] for labels, ref in numbers.items() if expected[ref]}
    _assert_chunks_are_in_one_block_range(ours)
    # Whatever comes next goes on from there.
    after = max(newest.values()) + 1
    more = np.array(list(newest), dtype=np.uint32)
    values = np.full(len(more), reference.to_bits(0.1), dtype=np.uint64)
    for step in range(6):
        times = np.full(len(more), after + step, dtype=np.int64)
        for head in (ours, plain):
            codes, _ = head.admit(more, times, values, head.rules(after + step, after))
            head.store(more, times, values, codes)
    assert read(ours) == read(plain)


def _assert_chunks_are_in_one_block_range(head: Head) -> None:
    closed = head.sealed[1 : head.counters[k.SEALED_END]]
    begun = closed[:, k.SEALED_MINT].astype(np.int64)
    ended = begun + (closed[:, k.SEALED_LINK] & np.uint64(0xFFFFFFFF)).astype(np.int64)
    assert (begun // head.block_range_ms == ended // head.block_range_ms).all()
    assert (closed[:, k.SEALED_PLACE] >> np.uint64(56) <= CHUNK_SAMPLES).all()


def closed_chunks(head: Head, ref: int) -> list[bytes]:
    """Bytes of the closed chunks of a series, oldest first; all are in the current segment."""
    found, at = [], int(head.rows[ref & 0xFFFFFF, k.CHAINS]) & 0xFFFFFFFF
    while at:
        place = int(head.sealed[at, k.SEALED_PLACE])
        position = (place & (k.POSITION_REACH - 1)) - head.chunk_log.base
        found.append(head.chunk_log.current[position : position + (place >> 40 & 0xFFFF)].tobytes())
        at = int(head.sealed[at, k.SEALED_LINK]) >> 32
    return found[::-1]


@pytest.mark.parametrize("jitter", [0, 3, 5_000])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_kept_as_the_slow_coder_writes_it(kind: str, jitter: int) -> None:
    head, refs = make_head()
    writer, store = Writer(7, refs), BundleStore(head, threading.Lock())
    writer.lists, writer.own_times = [refs.astype(np.uint32)] * 2, [False, False]
    writer.kinds = dict.fromkeys(writer.kinds, kind)
    states: dict[int, reference.State] = {}
    expected: dict[int, list[bytes]] = {int(ref): [] for ref in refs}
    writer.now = [T0, T0]
    for size in (40, 60):
        parts, rows = [], []
        for _ in range(size):
            writer.now[0] += 15_000 + int(writer.rng.integers(0, jitter + 1))
            rows.append([(ref, writer.now[0], writer._value(ref)) for ref in refs.tolist()])
        before = {ref: replace(states.get(ref, reference.State())) for ref in refs.tolist()}
        for made in rows:
            keys, times, values = reference.encode(made, states)
            text, coded = (np.frombuffer(each, dtype=np.uint8) for each in (keys + times, values))
            parts.append(SamplesPayload(len(made), len(keys), len(times), text, coded))
        for i, ref in enumerate(refs.tolist()):
            samples = [(row[i][1], row[i][2]) for row in rows]
            expected[ref].append(codedchunk.encode_chunk(samples, before[ref]))
        bundle = Bundle.of(parts)
        bundle.records[:, LIST] = 0
        assert store.take(replace(bundle, lists=writer.lists[:1]), SEGMENT, NO_MAX_TIME) is not None
    assert {ref: closed_chunks(head, ref) for ref in expected} == expected
    assert not (head.rows[:, k.CHUNK] | head.rows[:, k.META] & np.uint64(k.TAIL_MASK)).any()


def test_kept_runs_outlive_another_crash_and_a_clean_stop_and_reach_blocks(tmp_path: Path) -> None:
    store = Store(tmp_path / "data", replace(OPTIONS, snapshot_on_close=False))
    store.fill(3, T0, 100, step=60_000)
    for snapshot in (False, True, True):
        store.db.close()
        head = store.open(snapshot_on_close=snapshot).head
        assert head.chunk_log.current[0] == 0x80
        assert store.read() == store.expected
        store.add(
            [
                (name(0), store.db.head.max_time + 1, 0.5),
                (name(1), store.db.head.max_time - HOUR // 2 + 1, 1.5),
            ]
        )
        store.fill(3, store.db.head.max_time + 1, 30)
        assert store.read() == store.expected
    store.fill(3, T0 + 3 * HOUR, 70, step=300_000)
    store.db.maintenance.run()
    assert store.db.blocks()
    assert store.read() == store.expected
    store.db.close()


def test_a_kept_run_that_was_damaged_is_refused_or_read_as_something_else() -> None:
    head, refs = make_head()
    bundle, _ = Writer(11, refs).bundle(100)
    assert BundleStore(head, threading.Lock()).take(bundle, SEGMENT, NO_MAX_TIME) is not None
    rng, refused = np.random.default_rng(1), 0
    whole = head.chunk_log.current[: head.counters[k.SEGMENT_USED]].copy()
    for _ in range(300):
        head.chunk_log.current[: len(whole)] = whole
        places = rng.integers(0, len(whole), int(rng.integers(1, 20)))
        head.chunk_log.current[places] ^= rng.integers(1, 256, len(places)).astype(np.uint8)
        try:
            read(head)
        except CorruptionError:
            refused += 1
    assert 0 < refused < 300


@pytest.mark.parametrize("coded_samples", [NEVER, 24])
def test_slabs_are_given_back_and_full_segments_followed_by_others(
    monkeypatch: pytest.MonkeyPatch, coded_samples: int
) -> None:
    head, refs = make_head()
    writer, store = Writer(3, refs), BundleStore(head, threading.Lock(), coded_samples)
    # A segment is smaller than what is stored, so that placing begins another one in the middle.
    monkeypatch.setattr("tsdb.chunks.SEGMENT_BYTES", 6_000)
    head.next_chunk_segment()
    expected: dict[int, list[tuple[int, int]]] = {int(ref): [] for ref in refs}
    writer.kinds = dict.fromkeys(writer.kinds, "any")
    for _ in range(12):
        for ref, t, bits in (made := writer.bundle(60))[1]:
            if not expected[ref] or t > expected[ref][-1][0]:
                expected[ref].append((t, bits))
        assert store.take(made[0], SEGMENT, NO_MAX_TIME) is not None
    assert len(head.chunk_log.segments) > 4
    assert sorted(read(head).values()) == sorted(each for each in expected.values() if each)
    # What open chunks do not use is on the list of free slabs, once each.
    used = int(head.counters[k.SLAB_END]) - 1
    free = head.slab_free[: int(head.counters[k.SLAB_FREE])].tolist()
    sizes = (head.rows[:, k.CHUNK].astype(np.int64) & 0xFFFFFFFF) + 7 >> 3
    assert len(set(free)) == len(free)
    assert used - len(free) == int(((sizes + 63) // 64).sum())


def test_announced_series_take_samples_before_their_labels_come() -> None:
    symbols = SymbolTable()
    elder, head = (Head(symbols, (1, 2), late_window_ms=0, series_limit=64) for _ in range(2))
    rows = [Labels.from_dict({"__name__": "m", "i": str(i)}) for i in range(SERIES)]
    refs, new = elder.find_or_create(rows)
    assert new is not None
    assert head.announce(new.refs)
    bundle, samples = Writer(4, refs).bundle(50)
    assert BundleStore(head, threading.Lock()).take(bundle, SEGMENT, NO_MAX_TIME) is not None
    head.install_announced(new)
    assert sum(map(len, read(head).values())) == head.counters[k.STORED] > 0
    assert {labels for labels, kept in read(head).items() if kept} <= set(rows)
    last = dict.fromkeys((ref for ref, _, _ in samples), 0)
    assert head.series.series_count == SERIES
    assert len(head.select((), -(2**62), 2**62).labels) == len(last)
    for taken in (new.refs, new.refs[:1] | np.uint32(1 << 24), np.array([1 << 23], dtype=np.uint32)):
        assert not head.announce(taken)


def test_what_is_no_bundle_is_left_to_others() -> None:
    head, refs = make_head()
    store = BundleStore(head, threading.Lock())
    bundle, _ = Writer(1, refs).bundle(4)
    before = head.rows.copy()
    twice = np.concatenate([bundle.lists[0], bundle.lists[0][:1]])
    elder = bundle.lists[0] ^ np.uint32(1 << 24)
    unknown = bundle.lists[0] | np.uint32(0x800000)
    for lists in ([], [twice], [elder], [unknown]):
        assert store.take(replace(bundle, lists=lists), SEGMENT, NO_MAX_TIME) is None
    assert np.array_equal(head.rows, before)
    assert store.take(bundle, SEGMENT, NO_MAX_TIME) is not None


def test_a_bundle_for_which_there_is_no_memory_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    head, refs = make_head()
    store, writer = BundleStore(head, threading.Lock()), Writer(2, refs)
    bundle, samples = writer.bundle(5)

    def short(dtype: type, count: int) -> np.ndarray:
        if dtype == np.uint8 and count > 100_000:
            raise MemoryError
        return reserve(dtype, count)

    monkeypatch.setattr("tsdb.replaybundle.reserve", short)
    monkeypatch.setattr("tsdb.replaybundle.RUN_BYTES_LIMIT", 100_000)
    assert store.take(bundle, SEGMENT, NO_MAX_TIME) is None
    monkeypatch.undo()
    assert store.take(bundle, SEGMENT, NO_MAX_TIME) is not None
    assert head.counters[k.STORED] == len(samples)


def test_bytes_that_do_not_decode_are_refused() -> None:
    head, refs = make_head()
    bundle, _ = Writer(5, refs).bundle(6)
    part = bundle.parts[2]
    for damaged in (
        SamplesPayload(part.count, part.refs_size, part.times_size, part.keys, part.coded[:1]),
        SamplesPayload(part.count, part.refs_size, part.times_size + 1, part.keys, part.coded),
        SamplesPayload(part.count, part.refs_size, 0, part.keys, part.coded),
        SamplesPayload(part.count + 1, part.refs_size, part.times_size, part.keys, part.coded),
    ):
        parts = [*bundle.parts[:2], damaged, *bundle.parts[3:]]
        made = replace(Bundle.of(parts), lists=bundle.lists)
        made.records[:, LIST] = bundle.records[:, LIST]
        with pytest.raises(CorruptionError, match="does not decode"):
            BundleStore(head, threading.Lock()).take(made, SEGMENT, NO_MAX_TIME)
