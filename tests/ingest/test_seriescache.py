"""The table from series text to slot against a dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.kernels.exposition import TEXT
from ingest.scrape.seriescache import NO_REF, SeriesCache
from ingest.scrape.text import scan_body

names = st.lists(st.integers(0, 40), max_size=30)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(names, st.booleans()), max_size=12), st.integers(0, 1 << 63))
def test_lookups_and_staleness_agree_with_a_dictionary(
    scrapes: list[tuple[list[int], bool]], seed: int
) -> None:
    cache = SeriesCache(seed)
    refs: dict[bytes, int] = {}
    tracked: set[int] = set()
    known: set[bytes] = set()
    for numbers, fails in scrapes:
        texts = [f'm{n % 7}{{n="{n}"}}'.encode() for n in numbers]
        scanned = scan_body(b"".join(text + b" 1\n" for text in texts), TEXT, seed)
        slots, misses = cache.lookup(scanned)
        assert misses == sum(text not in refs for text in texts)
        missing = [i for i in range(len(texts)) if slots[i] < 0]
        new = list(dict.fromkeys(texts[i] for i in missing))
        for text in new:
            # Every seventh series is dropped by relabelling.
            refs[text] = int(NO_REF) if hash_of(text) % 7 == 0 else len(refs)
        hashes = np.array([scanned.hashes[texts.index(text)] for text in new], np.uint64)
        given_refs = np.array([refs[text] for text in new], np.uint32)
        added = cache.add(new, hashes, given_refs, np.zeros(len(new), np.uint8))
        for i in missing:
            slots[i] = added[new.index(texts[i])]
        before = cache.tracked_refs()
        assert set(before.tolist()) == tracked
        observed = cache.observe(slots, np.zeros(len(texts), np.uint8), False)
        active = [text for text in texts if refs[text] != NO_REF]
        assert observed.post_relabel_count == len(active)
        assert observed.kept_count == len(set(active))
        assert observed.added_count == len(set(active) - known)
        now = {refs[text] for text in active}
        assert set(cache.vanished_refs(before).tolist()) == tracked - now
        if fails:
            cache.fail()
            tracked = set()
            known |= set(texts)
        else:
            cache.commit()
            tracked, known = now, set(texts)
        for i, text in enumerate(texts):
            assert cache.text(int(slots[i])) == text


def hash_of(text: bytes) -> int:
    return int(text.split(b'"')[1])


def test_equal_hashes_are_told_apart_by_bytes() -> None:
    cache = SeriesCache()
    scanned = scan_body(b"a 1\nb 1\n", TEXT)
    scanned.hashes[:] = 42
    cache.add([b"a", b"b"], scanned.hashes, np.array([5, 6], np.uint32), np.zeros(2, np.uint8))
    slots, misses = cache.lookup(scanned)
    assert misses == 0
    assert cache.refs[slots].tolist() == [5, 6]


def test_seen_series_survive_the_removal_of_unseen_ones() -> None:
    cache = SeriesCache()
    for start in range(0, 6000, 500):
        texts = [b"keep"] + [f"s{n}".encode() for n in range(start, start + 500)]
        scanned = scan_body(b"".join(text + b" 1\n" for text in texts), TEXT)
        slots, _ = cache.lookup(scanned)
        new = [text for text, slot in zip(texts, slots, strict=True) if slot < 0]
        refs = np.arange(len(new), dtype=np.uint32) + start + 1
        if start:
            assert b"keep" not in new
        slots[slots < 0] = cache.add(new, scanned.hashes[slots < 0], refs, np.zeros(len(new), np.uint8))
        cache.observe(slots, np.zeros(len(texts), np.uint8), False)
        cache.commit()
    assert cache.count < 2600
    slots, misses = cache.lookup(scan_body(b"keep 1\ns5999 1\n", TEXT))
    assert misses == 0
    assert cache.text(int(slots[0])) == b"keep"
    assert cache.refs[slots[0]] == 1
