"""Hashes, hash tables and the series table."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.hashing import hash_region
from tsdb.errors import LimitError
from tsdb.kernels.hashing import hash_regions
from tsdb.kernels.table import NO_REF, lookup_many
from tsdb.labels import Labels
from tsdb.reftable import RefTable
from tsdb.series import SLOT_BITS, SLOT_MASK, SeriesTable
from tsdb.symbols import SymbolTable

SEEDS = (0x0123456789ABCDEF, 0xDEADBEEFCAFEF00D)


def hashed(regions: list[bytes], seeds: tuple[int, int]) -> list[tuple[int, int]]:
    offsets = np.zeros(len(regions) + 1, dtype=np.int64)
    np.cumsum([len(r) for r in regions], out=offsets[1:])
    buffer = np.frombuffer(b"".join(regions) or b"\0", dtype=np.uint8).copy()
    out = np.zeros(len(regions), dtype=np.uint64), np.zeros(len(regions), dtype=np.uint64)
    hash_regions(buffer, offsets, *seeds, *out)
    return list(zip(out[0].tolist(), out[1].tolist(), strict=True))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(max_size=80), min_size=1, max_size=8),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
)
def test_hash_equals_the_slow_twin(regions, seed0, seed1):
    assert hashed(regions, (seed0, seed1)) == [hash_region(r, seed0, seed1) for r in regions]


def test_hashes_of_similar_regions_and_of_prefixes_differ():
    base = bytes(range(64))
    regions = [base[:n] for n in range(65)] + [bytes(n) for n in range(65)]
    regions += [base[:i] + bytes([base[i] ^ 1 << bit]) + base[i + 1 :] for i in range(64) for bit in range(8)]
    found = hashed(list(dict.fromkeys(regions)), SEEDS)
    assert len({h for h, _ in found}) == len(found)
    assert len({s >> 32 for _, s in found}) == len(found)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3), st.integers(0, 1000)), max_size=200))
def test_table_with_a_weak_hash_behaves_as_a_dict(pairs):
    """Hashes from a tiny range force collisions and long probe runs."""
    table, twin = RefTable(), {}
    for key, check, ref in pairs:
        spread = key * 2**20 % 2**64
        twin[spread, check] = ref
        table.insert(
            np.array([spread], dtype=np.uint64),
            np.array([check], dtype=np.uint32),
            np.array([ref], dtype=np.uint32),
        )
    keys = [(key * 2**20, check) for key in range(1, 42) for check in range(4)]
    found = table.lookup(
        np.array([h for h, _ in keys], dtype=np.uint64), np.array([c for _, c in keys], dtype=np.uint32)
    )
    assert found.tolist() == [twin.get(key, -1) for key in keys]
    assert len(table) == len(twin)


def test_a_reader_with_an_old_snapshot_may_miss_but_never_finds_a_wrong_ref():
    table = RefTable()
    source = np.random.default_rng(1)
    count = 60_000
    hashes = source.integers(1, 2**63, count).astype(np.uint64)
    checks = (hashes >> np.uint64(7)).astype(np.uint32)
    refs = np.arange(count, dtype=np.uint32)
    stop, wrong, hits = threading.Event(), [], []

    def look() -> None:
        found = np.empty(count, dtype=np.int64)
        while not stop.is_set():
            lookup_many(hashes, checks, *table.snapshot(), found)
            hit = found >= 0
            hits.append(int(hit.sum()))
            if (found[hit] != refs[hit]).any():
                wrong.append(found)

    reader = threading.Thread(target=look)
    reader.start()
    for at in range(0, count, 500):
        table.insert(hashes[at : at + 500], checks[at : at + 500], refs[at : at + 500])
    stop.set()
    reader.join()
    assert not wrong
    assert hits
    assert (table.lookup(hashes, checks) == refs).all()
    keys, _, stored = table.snapshot()
    assert len(table) <= 0.6 * len(keys)
    assert ((keys == 0) == (stored == NO_REF)).all()


def make(series_limit: int = 4096) -> SeriesTable:
    return SeriesTable(SymbolTable(), SEEDS, series_limit)


def create(table: SeriesTable, rows: list[Labels]) -> np.ndarray:
    offsets, ids = table.ids_of(rows)
    assert (table.find(offsets, ids) == -1).all()
    return table.create(offsets, ids)


def labels(n: int) -> Labels:
    return Labels.from_dict({"__name__": "m", "n": str(n)})


def test_series_are_found_by_their_labels_and_keep_them():
    table = make()
    rows = [labels(n) for n in range(2000)]
    refs = create(table, rows)
    offsets, ids = table.ids_of(rows)
    assert (table.find(offsets, ids) == refs).all()
    assert table.labels_of(refs & np.uint32(SLOT_MASK)).rows() == rows


def test_removed_series_are_unknown_by_every_way_and_their_aliases_are_gone():
    table = make()
    rows = [labels(n) for n in range(100)]
    refs = create(table, rows)
    table.insert_alias(11, 12, int(refs[0]))
    table.insert_alias(21, 22, int(refs[1]))
    table.remove(refs[:1] & np.uint32(SLOT_MASK))
    offsets, ids = table.ids_of(rows)
    assert table.find(offsets, ids).tolist() == [-1, *refs[1:].tolist()]
    found = np.empty(2, dtype=np.int64)
    lookup_many(
        np.array([11, 21], dtype=np.uint64), np.array([12, 22], dtype=np.uint32), *table.snapshot(), found
    )
    assert found.tolist() == [-1, int(refs[1])]
    slots, known = table.slots_of(refs[:2])
    assert known.tolist() == [False, True]
    assert slots[0] == 0


def test_a_slot_comes_back_with_the_next_generation_and_pairs_are_reclaimed():
    table = make(series_limit=8)
    for turn in range(300):
        refs = create(table, [labels(10 * turn + n) for n in range(8)])
        assert set((refs >> np.uint32(SLOT_BITS)).tolist()) == {turn % 256}
        table.remove(refs & np.uint32(SLOT_MASK))
    assert table.series_count == 0


def test_more_series_than_fit_are_refused_and_none_is_created():
    table = make(series_limit=10)
    create(table, [labels(n) for n in range(8)])
    with pytest.raises(LimitError, match="3 more exceed the limit of 10"):
        create(table, [labels(n) for n in range(100, 103)])
    assert table.series_count == 8


def test_aliases_without_end_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr("tsdb.series.ALIASES_FLOOR", 1000)
    table = make()
    refs = create(table, [labels(0)])
    for at in range(1, 20_001, 100):
        hashes = np.arange(at, at + 100, dtype=np.uint64)
        table.insert_aliases(hashes, hashes.astype(np.uint32), np.full(100, refs[0], dtype=np.uint32))
        assert np.count_nonzero(table.snapshot()[0]) <= 1000
    found = np.empty(100, dtype=np.int64)
    assert lookup_many(hashes, hashes.astype(np.uint32), *table.snapshot(), found) == 0


label_sets = st.lists(st.integers(0, 60), min_size=1, max_size=40, unique=True)


def labels_of_many_names(n: int) -> Labels:
    """Six lists of names; some are the beginning of others."""
    names = ["__name__", *(f"n{n % 3}{i}" for i in range(n % 6 // 3 + 1)), *(["z"] if n % 6 == 5 else [])]
    return Labels.from_dict(dict.fromkeys(names, str(n // 6)) | {"__name__": f"m{n % 2}"})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(label_sets, st.sets(st.integers(0, 60))), min_size=1, max_size=12))
def test_label_sets_are_found_as_in_a_dictionary_while_series_come_and_go(script):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tsdb.series._CANONICAL_INITIAL", 8)
        patch.setattr("tsdb.series._NAME_SETS_REMEMBERED", 4)
        table, twin = make(series_limit=128), {}
        for wanted, doomed in script:
            rows = [labels_of_many_names(n) for n in wanted]
            offsets, ids = table.ids_of(rows)
            found = table.find(offsets, ids).tolist()
            assert found == [twin.get(n, -1) for n in wanted]
            new = [n for n in wanted if n not in twin]
            twin.update(zip(new, create(table, [labels_of_many_names(n) for n in new]).tolist(), strict=True))
            gone = [twin.pop(n) for n in doomed if n in twin]
            if gone:
                table.remove(np.array(gone, dtype=np.uint32) & np.uint32(SLOT_MASK))
        every = list(range(61))
        assert table.find(*table.ids_of([labels_of_many_names(n) for n in every])).tolist() == [
            twin.get(n, -1) for n in every
        ]
        slots = np.array(list(twin.values()), dtype=np.uint32) & np.uint32(SLOT_MASK)
        assert list(table.labels_of(slots).rows()) == [labels_of_many_names(n) for n in twin]
