"""A failure in the background does not stop the rest of it, and costs no sample that can be read."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tsdb.faults import FaultyDisk
from tests.tsdb.stores import HOUR, OPTIONS, T0, Store, matcher, name
from tsdb import maintenance
from tsdb.blockmeta import BlockMeta
from tsdb.errors import CorruptionError, DiskFullError
from tsdb.fs import FileSystem

MINUTE = 60_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


def flip_first_page(block: Path) -> None:
    """Flip a bit in the first page of values, which opening a block does not read."""
    data = bytearray((block / "columns").read_bytes())
    data[64] ^= 0x10
    (block / "columns").write_bytes(bytes(data))


def reconfigure(store: Store, **changes: float) -> None:
    store.db.reconfigure(replace(store.options, **changes))  # type: ignore[arg-type]


def write_hours(store: Store, hours: int) -> None:
    """Blocks of 2 h each that nobody has merged yet."""
    for start in range(0, hours, 2):
        store.fill(2, T0 + start * HOUR, 60, step=2 * MINUTE)
        store.db.maintenance.compact_head()


def test_a_damaged_block_does_not_stop_merges_nor_retention(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    write_hours(store, 24)
    first = store.db.blocks()[0]
    store.db.close()
    flip_first_page(first.path)
    store.open()
    with caplog.at_level(logging.ERROR, "tsdb"):
        store.db.maintenance.run()
        store.db.maintenance.run()
    lines = [r for r in caplog.records if "A block is damaged" in r.message]
    assert [(r.block, "page 0" in r.err) for r in lines] == [(first.meta.ulid, True)]  # type: ignore[attr-defined]
    assert store.metric("vedette_tsdb_damaged_blocks") == 1
    assert store.metric("prometheus_tsdb_compactions_failed_total") == 1
    ulids = [s.meta.ulid for s in store.db.blocks()]
    assert first.meta.ulid in ulids
    assert any(len(s.meta.sources) > 1 for s in store.db.blocks())
    later = {t: v for t, v in store.expected[name(0)].items() if t >= first.meta.max_time}
    assert store.read(mint=first.meta.max_time)[name(0)] == later
    with pytest.raises(CorruptionError, match="does not match its checksum"):
        store.read()
    reconfigure(store, retention_ms=12 * HOUR)
    store.db.maintenance.run()
    assert first.meta.ulid not in [s.meta.ulid for s in store.db.blocks()]
    assert store.metric("vedette_tsdb_damaged_blocks") == 0
    store.db.close()


def test_retention_goes_on_while_the_disk_is_full(tmp_path: Path) -> None:
    disk = FaultyDisk()
    store = Store(tmp_path / "data", fs=disk)
    write_hours(store, 12)
    store.fill(2, T0 + 12 * HOUR, 120, step=2 * MINUTE)
    blocks = store.db.blocks()
    reconfigure(store, retention_bytes=1)
    disk.full = True
    with pytest.raises(DiskFullError):
        store.db.maintenance.run()
    assert len(store.db.blocks()) == 0 < len(blocks)
    assert not blocks[0].path.exists()
    disk.full = False
    reconfigure(store, retention_bytes=0)
    store.db.maintenance.run()
    later = {t: v for t, v in store.expected[name(0)].items() if t >= T0 + 12 * HOUR}
    assert store.read(mint=T0 + 12 * HOUR)[name(0)] == later
    store.db.close()


def test_blocks_that_are_moved_in_are_taken_up_and_half_ones_later(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "tsdb")
    other = Store(tmp_path / "other")
    write_hours(other, 6)
    other.db.close()
    moved = [stored.path for stored in other.db.blocks()]
    target = store.path / moved[0].name
    target.mkdir()
    shutil.copy(moved[0] / "meta.json", target)
    store.db.maintenance.run()
    assert (store.db.blocks(), store.read()) == ((), {})
    assert "A new block cannot be opened" in [record.message for record in caplog.records]
    assert target.exists()
    shutil.copytree(moved[0], target, dirs_exist_ok=True)
    shutil.copytree(moved[1], store.path / moved[1].name)
    store.db.maintenance.run()
    assert [stored.path.name for stored in store.db.blocks()] == [path.name for path in moved]
    assert store.read() == {
        labels: {t: v for t, v in samples.items() if t < T0 + 4 * HOUR}
        for labels, samples in other.expected.items()
    }
    store.db.close()


class SmallDisk(FileSystem):
    """A disk of 10,000 bytes."""

    def disk_bytes(self, path: Path) -> int:
        return 10_000


def test_retention_by_a_share_of_the_disk(tmp_path: Path) -> None:
    store = Store(tmp_path / "data", fs=SmallDisk())
    write_hours(store, 12)
    count = len(store.db.blocks())
    reconfigure(store, retention_disk_percent=100)
    assert store.db.block_bytes() + store.db.wal_bytes() + store.db.head.chunk_storage_bytes() > 10_000
    store.db.maintenance.retain()
    left = store.db.blocks()
    assert len(left) < count
    assert store.metric("prometheus_tsdb_size_retentions_total") == count - len(left)
    store.db.close()


def test_a_snapshot_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    disk = FaultyDisk()
    store = Store(tmp_path / "data", fs=disk)
    write_hours(store, 6)
    disk.full = True
    with pytest.raises(DiskFullError):
        store.db.snapshot()
    assert list((store.path / "snapshots").iterdir()) == []
    disk.full = False
    name = store.db.snapshot()
    assert [path.name for path in (store.path / "snapshots").iterdir()] == [name]
    store.db.close()


@pytest.mark.parametrize("work", ["cut", "merge"])
def test_a_block_that_cannot_be_read_back_replaces_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    hours = 4 if work == "cut" else 12
    write_hours(store, hours)
    if work == "cut":
        store.fill(2, T0 + hours * HOUR, 120, step=2 * MINUTE)
    written = maintenance.write_block

    def torn(*arguments: object, **options: object) -> BlockMeta:
        meta = written(*arguments, **options)  # type: ignore[arg-type]
        with (store.path / meta.ulid / "columns").open("r+b") as file:
            file.truncate(100)
        return meta

    monkeypatch.setattr(maintenance, "write_block", torn)
    before = [s.meta.ulid for s in store.db.blocks()]
    with pytest.raises(CorruptionError, match="cannot be read after they were written"):
        store.db.maintenance.run()
    assert [s.meta.ulid for s in store.db.blocks()] == before
    assert store.read() == store.expected
    assert store.metric("vedette_tsdb_quarantined_files_total", kind="block") >= 1
    monkeypatch.undo()
    store.db.maintenance.run()
    assert store.read() == store.expected
    copy = store.path.with_name("copy")
    shutil.copytree(store.path, copy, ignore=shutil.ignore_patterns("lock"))
    again = Store(copy, options=OPTIONS)
    assert again.read() == store.expected
    again.db.close()
    store.db.close()


@pytest.mark.parametrize(("series", "rewritten"), [(1, False), (2, True)])
def test_a_long_block_of_which_a_twentieth_is_deleted_is_rewritten(
    store: Store, series: int, rewritten: bool
) -> None:
    """One of 20 series is less than a twentieth of 20 and one, two are more."""
    store.fill(20, T0, 12 * 6, step=10 * MINUTE)
    store.db.maintenance.run()
    long = store.db.blocks()[0]
    assert long.meta.max_time - long.meta.min_time > 2 * HOUR
    for i in range(series):
        store.db.delete_series([[matcher("i", str(i))]], T0, T0 + HOUR)
        samples = store.expected[name(i)]
        store.expected[name(i)] = {t: v for t, v in samples.items() if t > T0 + HOUR}
    store.db.maintenance.run()
    assert store.read() == store.expected
    assert bool(store.db.blocks()[0].tombstones) != rewritten
    store.db.close()
