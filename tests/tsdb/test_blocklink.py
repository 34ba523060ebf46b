"""Blocks merged by links: the same samples, no page written again."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tsdb.faults import Crashed, FaultyDisk
from tests.tsdb.memoryselection import FloatSample, MemorySelection, Row, all_rows
from tests.tsdb.samplestrategies import rows
from tests.tsdb.stores import HOUR, OPTIONS, T0, Store, matcher, name
from tsdb.block import Block
from tsdb.blocklink import can_link, link_blocks
from tsdb.blockmeta import BlockMeta
from tsdb.blockwriter import new_ulid, write_block
from tsdb.errors import CorruptionError, StorageError
from tsdb.fs import FileSystem
from tsdb.labels import Labels
from tsdb.symbols import SymbolTable

FS = FileSystem()
ALL = (-(2**62), 2**62)
MINUTE = 60_000
EVERY = int(os.environ.get("VEDETTE_FAULT_EVERY", "60")) // 12 or 1
"""Every how manieth call of a merge fails."""
COLUMNS = ["columns", "columns.1", "columns.2"]


def written(directory: Path, source: list[Row], edges: list[int]) -> list[Block]:
    """Blocks of [edges[k], edges[k + 1]), those without samples left out."""
    symbols = SymbolTable()
    metas = [
        write_block(FS, directory, a, b, MemorySelection(source, symbols))
        for a, b in itertools.pairwise(edges)
    ]
    return [Block.open(FS, directory / meta.ulid, symbols) for meta in metas if meta.stats.num_samples]


def filled(selection: object) -> dict[Labels, Row]:
    return {labels: row for labels, row in all_rows(selection).items() if row.floats or row.histograms}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    source=rows(), cuts=st.lists(st.integers(-20, 60), min_size=1, max_size=3, unique=True), data=st.data()
)
def test_linked_blocks_give_what_one_block_gives(
    tmp_path_factory: pytest.TempPathFactory, source: list[Row], cuts: list[int], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("blocks")
    edges = [-30, *sorted(cuts), 80]
    blocks = written(directory, source, edges)
    if len(blocks) < 2:
        return
    assert can_link(blocks)
    meta = link_blocks(FS, directory, BlockMeta(new_ulid(), -30, 80), blocks)
    linked = Block.open(FS, directory / meta.ulid, SymbolTable())
    assert linked.meta == meta
    whole = write_block(FS, directory, -30, 80, MemorySelection(source, SymbolTable()))
    one = Block.open(FS, directory / whole.ulid, SymbolTable())
    assert meta.stats.num_series == whole.stats.num_series
    assert meta.stats.num_float_samples == whole.stats.num_float_samples
    assert meta.stats.num_histogram_samples == whole.stats.num_histogram_samples
    assert linked.label_names() == one.label_names()
    mint, maxt = data.draw(st.tuples(st.integers(-30, 20), st.integers(21, 80)))
    for span in (ALL, (mint, maxt)):
        found, want = linked.select((), *span), one.select((), *span)
        assert filled(found) == filled(want)
    for block in blocks:
        for file in FS.list(block.path):
            (block.path / file).unlink()
    assert filled(Block.open(FS, directory / meta.ulid, SymbolTable()).select((), *ALL)) == filled(
        one.select((), *ALL)
    )


@pytest.fixture
def store(tmp_path: Path):
    opened = Store(tmp_path / "data")
    yield opened
    opened.db.close()


def live(store: Store, hours: int, first: int = 0) -> None:
    """A round of background work every hour, so that one range of two hours is due at a time."""
    for hour in range(first, first + hours):
        start = T0 + hour * HOUR
        store.fill(2 + hour % 3, start, 12, step=5 * MINUTE)
        store.db.maintenance.run()


def column_files(store: Store) -> list[int]:
    return [stored.meta.column_files for stored in store.db.blocks()]


def test_six_hours_are_linked_and_more_is_written_anew(store) -> None:
    live(store, 8)
    assert column_files(store) == [1, 1, 1]
    files = [os.stat(stored.path / "columns").st_ino for stored in store.db.blocks()]
    live(store, 2, first=8)
    assert column_files(store) == [3, 1]
    linked = store.db.blocks()[0]
    assert [os.stat(linked.path / file).st_ino for file in COLUMNS] == files
    assert {os.stat(linked.path / file).st_nlink for file in COLUMNS} == {1}
    assert (linked.meta.level, len(linked.meta.sources), len(linked.meta.parents)) == (2, 3, 3)
    assert store.read() == store.expected
    start = T0 // (18 * HOUR) * (18 * HOUR)
    live(store, (start + 18 * HOUR - T0) // HOUR + 16, first=10)
    assert any(
        stored.meta.column_files == 1 and stored.meta.max_time - stored.meta.min_time > 6 * HOUR
        for stored in store.db.blocks()
    )
    assert store.read() == store.expected


def test_a_linked_block_takes_deletions_snapshots_and_restarts(store) -> None:
    live(store, 10)
    assert column_files(store) == [3, 1]
    store.db.close()
    store.open()
    snapshot = store.path / "snapshots" / store.db.snapshot()
    assert store.read() == store.expected
    store.db.delete_series([[matcher("i", "1")]], T0, T0 + 4 * HOUR)
    kept = {t: v for t, v in store.expected[name(1)].items() if t > T0 + 4 * HOUR}
    want = {**store.expected, name(1): kept}
    assert store.read() == want
    store.db.clean_tombstones()
    assert column_files(store) == [1, 1]
    assert store.read() == want
    copy = Store(snapshot)
    assert copy.read() == store.expected
    copy.db.close()


def test_overlapping_or_many_files_are_not_linked(tmp_path: Path) -> None:
    source = [Row(name(0), [FloatSample(t, 0, t) for t in range(50)], [])]
    first, second, third = written(tmp_path, source, [0, 10, 20, 30])
    assert can_link([first, second, third])
    assert not can_link([first])
    assert not can_link([second, first])
    (over,) = written(tmp_path, source, [5, 15])
    assert not can_link([first, over])
    meta = link_blocks(FS, tmp_path, BlockMeta(new_ulid(), 0, 30), [first, second, third])
    linked = Block.open(FS, tmp_path / meta.ulid, first.symbols)
    later, last = written(tmp_path, source, [30, 40, 50])
    assert can_link([linked, later])
    assert not can_link([linked, later, last])


def test_blocks_with_deletions_are_written_anew(store) -> None:
    live(store, 8)
    store.db.delete_series([[matcher("i", "1")]], T0, T0)
    del store.expected[name(1)][T0]
    live(store, 2, first=8)
    assert column_files(store) == [1, 1]
    assert store.read() == store.expected


@pytest.mark.parametrize("code", [errno.EPERM, errno.EMLINK])
def test_files_are_copied_where_links_do_not_work(store, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    live(store, 10)
    assert column_files(store) == [3, 1]
    assert store.read() == store.expected


@pytest.mark.parametrize("file", COLUMNS)
def test_damage_in_any_file_names_it(store, file: str) -> None:
    live(store, 10)
    path = store.db.blocks()[0].path
    store.db.close()
    data = bytearray((path / file).read_bytes())
    data[80] ^= 1
    (path / file).write_bytes(data)
    block = Block.open(FS, path, SymbolTable())
    with pytest.raises(CorruptionError, match=f"{path / file}: page"):
        all_rows(block.select((), *ALL))
    store.open()


def test_a_block_without_one_of_its_files_is_set_aside(store) -> None:
    live(store, 10)
    path = store.db.blocks()[0].path
    store.db.close()
    (path / "columns.1").unlink()
    store.open()
    assert [stored.path.name for stored in store.db.blocks()].count(path.name) == 0
    assert (store.path / "quarantine" / path.name / "columns.2").exists()


def test_meta_json_tells_programs_of_before_to_keep_off(store) -> None:
    live(store, 10)
    path = store.db.blocks()[0].path / "meta.json"
    document = json.loads(path.read_bytes())
    assert (document["version"], document["columnFiles"]) == (2, 3)
    for count in (0, 1, 65, "x"):
        with pytest.raises(CorruptionError, match=r"meta\.json"):
            BlockMeta.from_json(json.dumps(document | {"columnFiles": count}).encode(), "meta.json")


@pytest.mark.parametrize(("kind", "first"), [("crash", 1), ("power", 2), ("eio", 3), ("full", 4)])
def test_a_merge_that_fails_at_any_call_loses_nothing(store, tmp_path: Path, kind: str, first: int) -> None:
    live(store, 8)
    for hour in (8, 9):
        store.fill(2, T0 + hour * HOUR, 12, step=5 * MINUTE)
    store.db.maintenance.compact_head()
    assert column_files(store) == [1, 1, 1, 1]
    store.db.close()
    merged, calls = False, first - EVERY
    while not merged:
        calls += EVERY
        path = tmp_path / f"{kind}{calls}"
        shutil.copytree(store.path, path)
        disk = FaultyDisk(0, kind if kind in ("eio", "full") else "crash", seed=calls)
        failing = Store(path, replace(OPTIONS, lock_file=False), fs=disk)
        disk.at = disk.calls + calls
        with contextlib.suppress(Crashed, OSError, StorageError):
            failing.db.maintenance.compact_blocks()
        merged, disk.at = disk.calls < disk.at, 0
        if disk.dead:
            failing.db.wal.close()
        else:
            disk.full = False
            failing.db.close()
        if kind == "power":
            disk.power_cut()
        again = Store(path)
        assert again.read() == store.expected
        again.db.maintenance.compact_blocks()
        assert column_files(again) == [3, 1]
        assert again.read() == store.expected
        again.db.close()
    assert calls > 15
