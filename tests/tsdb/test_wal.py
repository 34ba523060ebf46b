"""The write-ahead log: what a damage costs, and what the disk may do to the writer."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.tsdb.faults import FaultyDisk
from tests.tsdb.stores import OPTIONS, T0, Store, name
from tsdb.errors import ClosedError, DiskFullError, StorageError, UnknownVersionError
from tsdb.fs import SECTOR_BYTES, AppendFile, FileSystem
from tsdb.wal import (
    CONTINUES,
    FILE_HEADER,
    RECORD_HEADER,
    SegmentRead,
    Wal,
    file_header,
    read_segment,
    record_bytes,
)

PAYLOADS = [b"one", b"two" * 100, b"", b"four" * 50]


def segment(flags: list[int] | None = None) -> bytes:
    parts = [file_header(1)]
    for i, payload in enumerate(PAYLOADS):
        parts.extend(record_bytes(2, flags[i] if flags else 0, i + 1, payload))
    return b"".join(parts)


def ends() -> list[int]:
    """Length of the segment after 0, 1, ... records."""
    out = [FILE_HEADER.size]
    for payload in PAYLOADS:
        out.append(out[-1] + RECORD_HEADER.size + len(payload))
    return out


def read(data: bytes) -> tuple[list[list[bytes]], SegmentRead]:
    state = SegmentRead()
    array = np.frombuffer(data, dtype=np.uint8)
    return [[r.payload.tobytes() for r in batch] for batch in read_segment(array, 1, state)], state


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


END = ends()
DAMAGES = [
    ("nothing", lambda d: d, 4, False),
    ("cut inside the last payload", lambda d: d[:-1], 3, True),
    ("cut inside a record header", lambda d: d[: END[3] + 7], 3, True),
    ("cut between records", lambda d: d[: END[2]], 2, False),
    ("a flipped bit in the first payload", lambda d: flip(d, END[0] + RECORD_HEADER.size), 0, True),
    ("a flipped bit in the second length", lambda d: flip(d, END[1]), 1, True),
    ("a flipped bit in the second sequence number", lambda d: flip(d, END[1] + 8), 1, True),
    ("zeros behind the end", lambda d: d + bytes(4096), 4, True),
    ("a record twice", lambda d: d + d[END[3] : END[4]], 4, True),
    ("no header", lambda d: d[:10], 0, True),
    ("a damaged header", lambda d: flip(d, 13), 0, True),
    ("an empty file", lambda d: b"", 0, True),
]


@pytest.mark.parametrize(
    ("damage", "survivors", "noticed"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES]
)
def test_records_before_a_damage_survive(damage, survivors, noticed):
    batches, state = read(damage(segment()))
    assert batches == [[payload] for payload in PAYLOADS[:survivors]]
    assert bool(state.damage) == noticed
    if survivors:
        assert state.good_bytes == END[survivors]


def test_a_batch_of_several_records_counts_as_one():
    batches, state = read(segment([0, CONTINUES, CONTINUES, 0]))
    assert batches == [PAYLOADS[:1], PAYLOADS[1:]]
    batches, state = read(segment([0, CONTINUES, CONTINUES, 0])[: END[3]])
    assert batches == [PAYLOADS[:1]]
    assert state.good_bytes == END[1]
    assert "without its end" in state.damage


def test_a_newer_version_is_refused():
    with pytest.raises(UnknownVersionError, match="version 9"):
        read(segment()[:4] + b"\x09" + segment()[5:])


class Observer:
    def __init__(self) -> None:
        self.syncs = self.failures = 0
        self.segments: list[int] = []

    def fsync(self, seconds: float) -> None:
        self.syncs += 1

    def written(self, size: int) -> None: ...

    def write_failed(self) -> None:
        self.failures += 1

    def segment(self, number: int) -> None:
        self.segments.append(number)


class FaultyFile:
    """Wraps a file; `fault(operation)` may raise."""

    def __init__(self, inner: AppendFile, fault) -> None:
        self._inner, self._fault = inner, fault

    def __getattr__(self, key: str):
        return getattr(self._inner, key)

    def write(self, buffers):
        self._fault("write", self._inner, buffers)
        return self._inner.write(buffers)

    def sync(self) -> None:
        self._fault("sync", self._inner, None)
        self._inner.sync()


class FaultyFiles(FileSystem):
    def __init__(self) -> None:
        self.fault = lambda operation, file, buffers: None

    def append_file(self, path: Path, *, create: bool = True, direct: bool = False) -> AppendFile:
        opened = super().append_file(path, create=create, direct=direct)
        return FaultyFile(opened, lambda *args: self.fault(*args))  # type: ignore[return-value]


def make_wal(path: Path, fs: FileSystem, **options) -> tuple[Wal, Observer]:
    observer = Observer()
    path.mkdir(exist_ok=True)
    settings = {"segment": 1, "sequence": 0, "sync": "batch", "clock": time.monotonic} | options
    return Wal(fs, path, observer=observer, **settings), observer


@pytest.mark.parametrize("sync", ["batch", "interval"])
def test_what_is_synced_at_once_is_whole_sectors_and_padding_may_be_cut_off(tmp_path, sync):
    wal, _ = make_wal(tmp_path / "wal", FileSystem(), sync=sync)
    for size in (1, 511, 512, 400_000, 3):
        wal.log([(2, b"x" * size, False), (2, b"y", False)]).result(10)
    wal.close()
    raw = (tmp_path / "wal" / "00000001").read_bytes()
    assert (len(raw) % SECTOR_BYTES == 0) == (sync == "batch")
    batches, state = read(raw.rstrip(b"\0"))
    assert [[len(payload) for payload in batch] for batch in batches] == [
        [size, 1] for size in (1, 511, 512, 400_000, 3)
    ]
    assert state.damage == ""


def test_a_disk_that_refuses_direct_writes_gets_usual_ones(tmp_path, monkeypatch):
    real, refused = os.write, []

    def write(descriptor, data):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            refused.append(len(data))
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    wal, _ = make_wal(tmp_path / "wal", FileSystem())
    wal.log([(2, b"first", False)]).result(10)
    wal.log([(2, b"second", False)]).result(10)
    wal.close()
    assert read((tmp_path / "wal" / "00000001").read_bytes())[0] == [[b"first"], [b"second"]]
    assert refused == [SECTOR_BYTES]


def test_batches_logged_together_share_one_sync(tmp_path):
    fs = FaultyFiles()
    wal, observer = make_wal(tmp_path / "wal", fs)
    gate, entered = threading.Event(), threading.Event()

    def wait(operation, file, buffers):
        if operation == "sync":
            entered.set()
            gate.wait(10)

    fs.fault = wait
    first = wal.log([(2, b"first", False)])
    assert entered.wait(10)
    rest = [wal.log([(2, b"rest", False)]) for _ in range(50)]
    assert not first.done()
    gate.set()
    for future in (first, *rest):
        future.result(10)
    assert observer.syncs == 2
    wal.close()
    batches, state = read((tmp_path / "wal" / "00000001").read_bytes())
    assert len(batches) == 51
    assert state.damage == ""


def test_a_group_waits_for_batches_that_are_expected_and_for_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr("tsdb.wal.GATHER_S", 3600.0)
    wal, observer = make_wal(tmp_path / "wal", FileSystem())
    wal.expected = lambda: 3
    first, second = (wal.log([(2, b"early", False)]) for _ in range(2))
    assert not first.done()
    third = wal.log([(2, b"late", False)])
    for future in (first, second, third):
        future.result(10)
    assert observer.syncs == 1
    # Who asks for the log to be on disk does not wait for others, nor does one who closes it.
    asked = wal.log([(2, b"asked", False)])
    wal.flush()
    assert asked.done()
    wal.expected = lambda: 1
    wal.log([(2, b"alone", False)]).result(10)
    wal.expected = lambda: 2
    last = wal.log([(2, b"last", False)])
    wal.close()
    assert last.done()
    assert len(read((tmp_path / "wal" / "00000001").read_bytes())[0]) == 6


def test_an_expected_batch_that_does_not_come_holds_nobody_up(tmp_path):
    wal, _ = make_wal(tmp_path / "wal", FileSystem())
    wal.expected = lambda: 2
    wal.log([(2, b"one", False)]).result(10)
    wal.close()


def test_a_segment_is_closed_at_its_size_and_records_are_not_split(tmp_path):
    wal, observer = make_wal(tmp_path / "wal", FileSystem(), segment_bytes=1000)
    for _ in range(10):
        wal.log([(2, bytes(300), False)]).result(10)
    wal.close()
    assert observer.segments == [1, 2, 3]
    # A record of 320 bytes begins where 976 are written; the segment is closed behind it.
    counts = [len(list(read_all(path))) for path in sorted((tmp_path / "wal").iterdir())]
    assert counts == [4, 4, 2]


def read_all(path: Path):
    state = SegmentRead()
    yield from read_segment(np.fromfile(path, dtype=np.uint8), int(path.name), state)
    assert not state.damage


def test_a_failed_sync_is_not_tried_again_and_stops_all_writing(tmp_path):
    fs = FaultyFiles()
    wal, _ = make_wal(tmp_path / "wal", fs)

    def fail(operation, file, buffers):
        if operation == "sync":
            raise OSError(5, "Input/output error")

    fs.fault = fail
    with pytest.raises(StorageError, match="Input/output error"):
        wal.log([(2, b"x", False)]).result(10)
    fs.fault = lambda *args: None
    with pytest.raises(StorageError, match="restart to recover"):
        wal.check()
    with pytest.raises(StorageError, match="restart to recover"):
        wal.log([(2, b"x", False)]).result(10)
    wal.close()


def test_a_full_disk_refuses_batches_until_there_is_space_and_keeps_what_it_took(
    tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", "tsdb.wal")
    monkeypatch.setattr("tsdb.wal.DISK_FULL_RETRY_S", 0.02)
    fs = FaultyFiles()
    wal, observer = make_wal(tmp_path / "wal", fs)
    wal.log([(2, b"before", False)]).result(10)

    def full(operation, file, buffers):
        if operation == "write":
            file.write([b"torn"])
            raise DiskFullError("no space left on device")

    fs.fault = full
    with pytest.raises(DiskFullError):
        wal.log([(2, b"refused", False)]).result(10)
    with pytest.raises(DiskFullError):
        wal.check()
    fs.fault = lambda *args: None
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            wal.check()
            break
        except DiskFullError:
            time.sleep(0.01)
    wal.log([(2, b"after", False)]).result(10)
    wal.close()
    batches, state = read((tmp_path / "wal" / "00000001").read_bytes())
    # The refused batch is in the head, so later batches may rely on it: it is logged after all.
    assert batches == [[b"before"], [b"refused"], [b"after"]]
    assert state.damage == ""
    assert observer.failures >= 1
    said = [record.message for record in caplog.records]
    assert said == [
        "Disk full: writes are refused until there is space",
        "There is space on the disk again: writes are taken",
    ]


def test_a_store_opens_on_a_full_disk_and_writes_when_there_is_space(tmp_path, monkeypatch):
    """Also with a torn log, for which there is no room in the quarantine."""
    monkeypatch.setattr("tsdb.wal.DISK_FULL_RETRY_S", 0.02)
    store = crashed(tmp_path)
    last = [path for path in segments(store) if path.stat().st_size > SECTOR_BYTES][-1]
    last.write_bytes(last.read_bytes().rstrip(b"\0")[:-5])
    for samples in store.expected.values():
        del samples[T0 + 29 * 15_000]
    torn = last.read_bytes()
    disk = FaultyDisk()
    disk.full = True
    store.fs = disk
    store.open()
    assert store.read() == store.expected
    with pytest.raises(DiskFullError):
        store.append([(name(0), T0 + 600_000, 1.0)])
    assert last.read_bytes() == torn
    disk.full = False
    deadline = time.monotonic() + 30
    while True:
        try:
            store.add([(name(0), T0 + 600_000, 1.0)])
            break
        except DiskFullError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    store.db.close()
    store.open()
    assert store.read() == store.expected
    store.db.close()


def test_a_closed_log_takes_nothing(tmp_path):
    wal, _ = make_wal(tmp_path / "wal", FileSystem())
    wal.close()
    with pytest.raises(ClosedError):
        wal.check()
    with pytest.raises(ClosedError):
        wal.log([(2, b"x", False)]).result(10)


@pytest.mark.parametrize("mode", ["batch", "interval", "never"])
def test_every_mode_writes_everything_before_close_returns(tmp_path, mode):
    wal, _ = make_wal(tmp_path / "wal", FileSystem(), sync=mode)
    futures = [wal.log([(2, str(n).encode(), False)]) for n in range(100)]
    wal.close()
    assert all(future.done() for future in futures)
    batches, _ = read((tmp_path / "wal" / "00000001").read_bytes())
    assert [batch[0] for batch in batches] == [str(n).encode() for n in range(100)]


# Damages to a store's log, at the level of the whole store.


def crashed(tmp_path: Path, **options) -> Store:
    """A store of three segments whose process died."""
    store = Store(tmp_path / "live", OPTIONS)
    for part in range(3):
        store.fill(3, T0 + part * 150_000, 10)
        with store.db.head.lock:
            store.db.wal.cut()
    shutil.copytree(tmp_path / "live", tmp_path / "dead")
    store.db.close()
    store.path = tmp_path / "dead"
    return store


def segments(store: Store) -> list[Path]:
    return sorted(path for path in (store.path / "wal").iterdir() if path.name.isdigit())


def test_a_killed_store_has_everything_after_a_restart(tmp_path):
    store = crashed(tmp_path)
    store.open()
    assert store.read() == store.expected
    assert store.metric("prometheus_tsdb_wal_corruptions_total") == 0
    assert store.metric("prometheus_tsdb_clean_start") == 0
    store.db.close()


def test_torn_last_record_is_dropped_and_counted(tmp_path):
    store = crashed(tmp_path)
    last = [path for path in segments(store) if path.stat().st_size > SECTOR_BYTES][-1]
    last.write_bytes(last.read_bytes().rstrip(b"\0")[:-5])
    store.open()
    dropped = T0 + 29 * 15_000
    for samples in store.expected.values():
        del samples[dropped]
    assert store.read() == store.expected
    assert store.metric("prometheus_tsdb_wal_corruptions_total") == 1
    assert len(list((store.path / "quarantine").iterdir())) == 1
    store.add([(name(0), dropped, 5.0)])
    store.db.close()
    store.open()
    assert store.read() == store.expected
    store.db.close()


def test_a_damaged_older_segment_is_set_aside_and_the_others_are_kept(tmp_path):
    store = crashed(tmp_path)
    second = segments(store)[1]
    data = bytearray(second.read_bytes())
    data[len(data) // 2 // SECTOR_BYTES * SECTOR_BYTES + RECORD_HEADER.size] ^= 1
    second.write_bytes(bytes(data))
    store.open(snapshot_on_close=False)
    found = store.read()
    assert store.metric("prometheus_tsdb_wal_corruptions_total") == 1
    assert store.metric("vedette_tsdb_quarantined_files_total", kind="wal") == 1
    lost = 0
    for labels, samples in store.expected.items():
        assert set(found[labels].items()) <= set(samples.items())
        missing = sorted(set(samples) - set(found[labels]))
        assert all(T0 + 150_000 <= t < T0 + 300_000 for t in missing)
        lost += len(missing)
    assert 0 < lost < 30
    assert [p.read_bytes() for p in (store.path / "quarantine").iterdir()] == [bytes(data)]
    # The good part stayed: a second start finds the same and no damage.
    store.db.close()
    store.open()
    assert store.read() == found
    assert store.metric("prometheus_tsdb_wal_corruptions_total") == 0
    store.db.close()
