"""A deletion that fails deletes nothing, at once and after a restart."""

from __future__ import annotations

import copy
import shutil
import time
from pathlib import Path

import pytest

from tests.tsdb.faults import FaultyDisk
from tests.tsdb.stores import HOUR, T0, Store, matcher, name
from tsdb import wal
from tsdb.errors import DiskFullError
from tsdb.fs import FileSystem

SETS = [[matcher("i", "0")], [matcher("i", "2")]]


class NoSpace(FaultyDisk):
    """A disk that is full from a call on; taking another name needs no space."""

    def rename(self, source: Path, target: Path) -> None:
        FileSystem.rename(self, source, target)

    def sync_directory(self, path: Path) -> None:
        FileSystem.sync_directory(self, path)


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A closed store with blocks and a head."""
    monkeypatch.setattr(wal, "DISK_FULL_RETRY_S", 0.01)
    store = Store(tmp_path / "filled")
    for hour in range(6):
        store.add(
            [(name(i), T0 + hour * HOUR + minute, float(i)) for i in range(3) for minute in (0, 60_000)]
        )
    store.db.maintenance.run()
    assert len(store.db.blocks()) > 1
    assert not store.db.head.empty
    store.db.close()
    return store


def _copy(filled: Store, path: Path) -> tuple[Store, NoSpace]:
    shutil.copytree(filled.path, path)
    disk = NoSpace()
    store = Store(path, fs=disk, now_s=filled.now_s)
    store.expected = copy.deepcopy(filled.expected)
    return store, disk


def _wait_for_space(store: Store) -> None:
    while True:
        try:
            store.db.wal.flush()
        except DiskFullError:
            time.sleep(0.01)
        else:
            return


def test_a_deletion_on_a_full_disk_is_all_or_nothing(filled: Store, tmp_path: Path) -> None:
    """The disk is full from each call on that a deletion makes, until it makes no more."""
    refusals = []
    for at in range(1, 100):
        store, disk = _copy(filled, tmp_path / str(at))
        disk.kind, disk.at = "full", disk.calls + at
        try:
            store.db.delete_series(SETS, T0, T0 + 10 * HOUR)
        except DiskFullError:
            refusals.append(at)
        left = store.expected if at in refusals else {name(1): store.expected[name(1)]}
        assert store.read() == left
        assert not list(store.path.rglob("tombstones.tmp"))
        reached, disk.full, disk.at = disk.full, False, 0
        _wait_for_space(store)
        assert store.read() == left
        store.db.close()
        store.open()
        assert store.read() == left
        store.db.close()
        if not reached:
            break
    assert len(refusals) > 5
    assert refusals[-1] == at - 1
