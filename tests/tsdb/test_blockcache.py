"""The budget of decoded pieces: bytes, order of eviction, parts, threads, and the store's use of it."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace

import pytest

from tests.tsdb.stores import HOUR, OPTIONS, T0, Store
from tsdb.blockcache import ENTRY_BYTES, BlockCache


def size_of(value: bytes) -> int:
    return len(value)


def made(size: int):
    return lambda: bytes(size)


def test_what_was_unused_for_longest_goes_first():
    cache = BlockCache(3 * (100 + ENTRY_BYTES))
    part = cache.part(size_of)
    for key in (1, 2, 3):
        part.get(key, made(100))
    part.get(1, made(100))
    part.get(4, made(100))
    assert (cache.hits, cache.misses, cache.evictions) == (1, 4, 1)
    assert cache.used == cache.limit
    part.get(2, made(100))
    assert cache.misses == 5
    part.get(1, made(100))
    assert cache.hits == 2


def test_a_value_larger_than_the_budget_is_returned_and_not_kept():
    cache = BlockCache(1000)
    part = cache.part(size_of)
    part.get(0, made(10))
    assert len(part.get(1, made(5000))) == 5000
    assert len(cache) == 1
    assert cache.used == 10 + ENTRY_BYTES


def test_no_budget_keeps_nothing():
    cache = BlockCache(0)
    cache.part(size_of).get(1, made(1))
    assert (len(cache), cache.used) == (0, 0)


def test_parts_do_not_see_each_other_and_are_dropped_alone():
    cache = BlockCache(10_000)
    left, right = cache.part(size_of), cache.part(size_of)
    assert left.get("k", lambda: b"left") == b"left"
    assert right.get("k", lambda: b"right") == b"right"
    left.clear()
    assert cache.used == 5 + ENTRY_BYTES
    assert right.get("k", lambda: b"new") == b"right"
    assert left.get("k", lambda: b"new") == b"new"


def test_a_failed_make_leaves_nothing_behind():
    cache = BlockCache(10_000)
    part = cache.part(size_of)

    def fail() -> bytes:
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        part.get(1, fail)
    assert (len(cache), cache.used) == (0, 0)


def test_used_bytes_stay_right_under_many_threads():
    cache = BlockCache(20_000)
    parts = [cache.part(size_of) for _ in range(3)]
    over: list[int] = []

    def work(seed: int) -> None:
        for i in range(3000):
            key = (i * 7919 + seed) % 97
            value = parts[i % 3].get(key, made(key * 10))
            if len(value) != key * 10 or cache.used > cache.limit:
                over.append(key)
            if i % 500 == 499:
                parts[seed % 3].clear()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    between = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(between)
    assert over == []
    assert cache.used == sum(size for _, size in cache._items.values())


def test_a_store_shares_one_budget_and_forgets_blocks_it_deleted(tmp_path):
    store = Store(tmp_path, replace(OPTIONS, cache_bytes=1 << 20))
    for n in range(4):
        store.fill(3, T0 + 2 * n * HOUR, 10, step=600_000)
    store.db.maintenance.run()
    assert len(store.db.blocks()) >= 1
    assert store.read() == store.expected
    cache = store.db.block_set.cache
    assert store.metric("vedette_tsdb_block_cache_bytes") == cache.used > 0
    assert store.metric("vedette_tsdb_block_cache_limit_bytes") == 1 << 20
    assert store.metric("vedette_tsdb_block_cache_misses_total") == cache.misses > 0
    before = cache.hits
    assert store.read() == store.expected
    assert store.metric("vedette_tsdb_block_cache_hits_total") > before
    store.db.block_set.swap([], store.db.blocks())
    assert (cache.used, len(cache)) == (0, 0)
    store.db.close()
