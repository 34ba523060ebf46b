"""Sealed chunks of the head: segments in memory and in files."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.mappings import resident_bytes
from tests.tsdb.stores import HOUR, OPTIONS, T0, Store, matcher, name
from tsdb import chunks
from tsdb.errors import LimitError
from tsdb.kernels.append import POSITION_REACH, SEGMENT_BASE


@pytest.fixture
def store(tmp_path, monkeypatch):
    for module in (
        chunks,
        __import__("tsdb.headsnapshot", fromlist=["x"]),
        __import__("tsdb.head", fromlist=["x"]),
    ):
        monkeypatch.setattr(module, "SEGMENT_BYTES", 1 << 17, raising=False)
    monkeypatch.setattr(chunks, "SEGMENT_SHIFT", 17)
    opened = Store(tmp_path / "data", replace(OPTIONS, chunk_memory_bytes=0))
    yield opened
    opened.db.close()


def fill(store: Store) -> None:
    rows = [(name(i), T0 + n * 1000, (n * 7919 + i) ** 0.5) for n in range(3000) for i in range(10)]
    for at in range(0, len(rows), 5000):
        store.add(rows[at : at + 5000])


def test_full_segments_go_to_files_and_are_read_from_there(store):
    fill(store)
    before = store.db.querier().select((), 0, 2**62)
    assert len(store.db.head.chunk_log.segments) > 1
    store.db.maintenance.run()
    files = list((store.path / chunks.DIRECTORY).iterdir())
    assert len(files) == len(store.db.head.chunk_log.segments) - 1
    assert store.read() == store.expected
    assert len(before.read(0, 10).t_ms) == 30_000


def names_of_files(store: Store) -> list[str]:
    return sorted(path.name for path in (store.path / chunks.DIRECTORY).iterdir())


def test_the_oldest_segments_stay_in_memory_up_to_a_budget(store):
    log = chunks.ChunkLog()
    four = 4 * chunks.SEGMENT_BYTES
    for _ in range(4):
        log.rotate()
    assert log.spill(store.db.fs, store.path, four) == 0
    log.rotate()
    assert [log.spill(store.db.fs, store.path, four) for _ in range(2)] == [2, 0]
    assert names_of_files(store) == ["00000003", "00000004"]
    log.drop_before(1 << chunks.SEGMENT_SHIFT)
    log.rotate()
    assert log.spill(store.db.fs, store.path, four) == 0


def test_of_many_times_the_budget_less_than_the_budget_stays_in_memory(store):
    log = chunks.ChunkLog()
    four = 4 * chunks.SEGMENT_BYTES
    for _ in range(16):
        log.rotate()
    assert [log.spill(store.db.fs, store.path, four) for _ in range(2)] == [15, 0]
    assert names_of_files(store) == [f"{index:08d}" for index in range(1, 16)]


def test_pages_read_from_files_are_let_go_and_come_back(store):
    fill(store)
    store.db.maintenance.run()
    file = next((store.path / chunks.DIRECTORY).iterdir())
    assert store.read() == store.expected
    assert resident_bytes(str(file)) > 0
    store.db.head.chunk_log.release_pages()
    assert resident_bytes(str(file)) == 0
    assert store.read() == store.expected


def test_files_go_when_their_chunks_are_in_blocks_and_readers_keep_theirs(store):
    fill(store)
    store.db.maintenance.run()
    open_selection = store.db.querier().select([matcher("i", "3")], 0, 2**62)
    store.add([(name(0), T0 + 9 * HOUR, 1.0)])
    store.db.maintenance.run()
    assert len(store.db.blocks()) == 1
    assert list((store.path / chunks.DIRECTORY).iterdir()) == []
    assert len(open_selection.read(0, 1).t_ms) == 3000
    assert store.read() == store.expected


@pytest.mark.parametrize("clean", [True, False])
def test_files_of_an_earlier_run_are_not_needed(store, clean):
    fill(store)
    store.db.maintenance.run()
    store.db.close()
    if not clean:
        (store.path / "head.snapshot").unlink()
    store.open()
    assert not list((store.path / chunks.DIRECTORY).iterdir())
    assert store.read() == store.expected
    store.db.maintenance.run()
    assert store.read() == store.expected


def test_positions_beyond_what_a_row_keeps_of_them_are_found_again(store):
    head = store.db.head
    index = (POSITION_REACH >> chunks.SEGMENT_SHIFT) - 1
    head.chunk_log.restore({index: head.chunk_log.current}, index)
    head.counters[SEGMENT_BASE] = head.chunk_log.base
    fill(store)
    assert head.chunk_log.base >= POSITION_REACH
    assert store.read() == store.expected
    head.truncate(T0 + 2_900_000)
    assert min(head.chunk_log.segments) > index
    newest = {
        labels: {t: value for t, value in samples.items() if t >= T0 + 2_900_000}
        for labels, samples in store.expected.items()
    }
    assert store.read(mint=T0 + 2_900_000) == newest


def test_a_log_of_chunks_has_a_longest_length(monkeypatch):
    monkeypatch.setattr(chunks, "SEGMENTS_LIMIT", 3)
    log = chunks.ChunkLog()
    for _ in range(2):
        log.rotate()
        log.check_room()
    log.rotate()
    with pytest.raises(LimitError, match=r"closed chunks of the head fill \d+ bytes, which is the limit"):
        log.check_room()
    log.drop_before(log.base)
    log.check_room()
