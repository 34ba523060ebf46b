"""Opening a store: what is refused with a clear line, set aside, or repaired."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.tsdb.stores import OPTIONS, T0, Store, name
from tsdb.database import open_database
from tsdb.errors import (
    ClosedError,
    LockedError,
    StorageError,
    UnknownVersionError,
)

MINUTE = 60_000


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "data")
    yield opened
    opened.db.close()


def test_a_second_process_is_refused_with_one_clear_line(store):
    with pytest.raises(LockedError, match=f"in use by another process \\(pid {os.getpid()}\\)"):
        open_database(store.path, OPTIONS)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give up its rights")
def test_a_directory_that_is_not_writable_is_refused_with_one_clear_line(tmp_path):
    for parent in tmp_path.parents:
        if parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)
    tmp_path.chmod(0o755)
    (tmp_path / "data").mkdir(mode=0o555)
    code = (
        "import os, sys\n"
        "from tsdb.database import open_database\n"
        "os.setuid(65534)\n"
        "try: open_database(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "data")], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("StorageError data directory"), done.stderr
    assert "is not writable" in done.stdout


def test_with_little_address_space_the_head_takes_fewer_series(tmp_path):
    code = (
        "import resource, sys\n"
        "from tsdb.database import open_database\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), used + (3 << 30)))\n"
        "store = open_database(sys.argv[1])\n"
        "print(store.series_table.slot_capacity)\n"
        "store.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "data")], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "250001\n", done.stderr


def test_a_block_of_a_newer_format_stops_the_start(store):
    store.fill(1, T0, 7 * 30, step=2 * MINUTE)
    store.db.maintenance.run()
    meta = store.db.blocks()[0].path / "meta.json"
    document = json.loads(meta.read_text())
    document["version"] = 2
    meta.write_text(json.dumps(document))
    store.db.close()
    with pytest.raises(UnknownVersionError, match="version 2"):
        open_database(store.path, OPTIONS)


def test_a_damaged_block_is_set_aside_and_the_rest_served(store):
    store.fill(2, T0, 7 * 30, step=2 * MINUTE)
    store.db.maintenance.run()
    first = store.db.blocks()[0]
    index = first.path / "index"
    store.db.close()
    index.write_bytes(index.read_bytes()[:-40])
    store.open()
    assert (store.path / "quarantine" / first.path.name / "meta.json").exists()
    assert store.metric("vedette_tsdb_quarantined_files_total", kind="block") == 1
    kept = {t for t in store.expected[name(0)] if t >= first.meta.max_time}
    assert set(store.read()[name(0)]) == kept


def test_unfinished_and_replaced_blocks_are_removed_at_the_start(store):
    store.fill(1, T0, 7 * 30, step=2 * MINUTE)
    store.db.maintenance.run()
    block = store.db.blocks()[0].path
    store.db.close()
    shutil.copytree(block, block.with_name(block.name + ".tmp-for-deletion"))
    shutil.copytree(block, block.with_name(block.name + ".tmp"))
    store.open()
    assert [p.name for p in store.path.iterdir() if ".tmp" in p.name] == []
    assert store.read() == store.expected


def test_a_damaged_head_snapshot_costs_a_replay_only(store):
    store.fill(3, T0, 100)
    store.db.close()
    snapshot = store.path / "head.snapshot"
    data = bytearray(snapshot.read_bytes())
    data[len(data) // 2] ^= 1
    snapshot.write_bytes(bytes(data))
    store.open()
    assert store.metric("prometheus_tsdb_clean_start") == 0
    assert store.read() == store.expected
    assert (store.path / "head.snapshot.damaged").exists()


def test_a_snapshot_with_other_rows_costs_a_replay_only(store, monkeypatch):
    store.fill(3, T0, 100)
    monkeypatch.setattr("tsdb.headsnapshot.SEGMENT_BYTES", 1 << 20)
    store.db.close()
    monkeypatch.undo()
    store.open()
    assert store.metric("prometheus_tsdb_clean_start") == 0
    assert store.read() == store.expected


def test_a_closed_store_refuses_and_may_be_closed_again(store):
    appender = store.db.appender()
    store.db.close()
    store.db.close()
    with pytest.raises(ClosedError):
        appender.refs([name(0)])
    with pytest.raises(ClosedError):
        store.db.querier()


def test_figures_of_the_store(store):
    store.fill(5, T0, 10)
    stats = store.db.head_stats()
    assert (stats.series_count, stats.min_time_ms, stats.max_time_ms) == (5, T0, T0 + 9 * 15_000)
    assert store.db.cardinality(3).series_by_metric_name == [("m", 5)]
    assert store.metric("prometheus_tsdb_head_series") == 5
    assert store.metric("prometheus_tsdb_head_samples_appended_total", type="float") == 50
    assert store.metric("prometheus_tsdb_head_max_time_seconds") == (T0 + 9 * 15_000) / 1000
    assert store.metric("prometheus_tsdb_wal_segment_current") >= 1
    assert store.metric("prometheus_tsdb_head_series_created_total") == 5


def test_a_future_file_of_the_log_is_not_touched(store):
    store.fill(1, T0, 3)
    store.db.close()
    (store.path / "head.snapshot").unlink()
    segment = sorted(p for p in (store.path / "wal").iterdir())[0]
    data = segment.read_bytes()
    segment.write_bytes(data[:4] + b"\x07" + data[5:])
    with pytest.raises(StorageError, match="format version 7"):
        open_database(store.path, OPTIONS)
    assert segment.read_bytes()[:5] == b"VDWL\x07"
