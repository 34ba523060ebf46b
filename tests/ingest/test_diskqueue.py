"""The queue on disk: order, restarts, limits, damage, and a disk that fails at every call."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.diskqueue import DiskQueue, QueueItem
from tests.tsdb.faults import Crashed, FaultyDisk
from tsdb.errors import DiskFullError, LimitError, LockedError, StorageError, UnknownVersionError

MIB = 1 << 20


def drain(queue: DiskQueue, after: int = 0) -> list[QueueItem]:
    found = []
    while (item := queue.next(after)) is not None:
        found.append(item)
        after = item.sequence
    return found


def payloads(queue: DiskQueue) -> list[bytes]:
    return [item.payload for item in drain(queue)]


def test_records_come_back_in_order_with_their_time_and_count(tmp_path: Path) -> None:
    queue = DiskQueue(tmp_path, MIB)
    assert [queue.append(b"a" * n, n, 1000 + n) for n in (1, 2, 3)] == [1, 2, 3]
    assert drain(queue) == [QueueItem(n, 1000 + n, n, b"a" * n) for n in (1, 2, 3)]
    assert (queue.record_count, queue.pending_items) == (3, 6)


def test_what_is_not_acknowledged_comes_again_after_a_restart(tmp_path: Path) -> None:
    queue = DiskQueue(tmp_path, MIB)
    for n in range(5):
        queue.append(b"%d" % n, 1, n)
    queue.acknowledge(3)
    epoch = queue.epoch
    queue.close()
    again = DiskQueue(tmp_path, MIB)
    assert (payloads(again), again.pending_items) == ([b"3", b"4"], 2)
    assert again.append(b"5", 1, 5) == 6
    assert again.epoch == epoch


def test_numbers_go_on_when_all_was_acknowledged_and_removed(tmp_path: Path) -> None:
    queue = DiskQueue(tmp_path, MIB, segment_bytes=100)
    for _ in range(10):
        queue.append(b"x" * 60, 1, 0)
    queue.acknowledge(10)
    # As after kill -9: not closed, but the lock is gone with the process.
    queue._lock.close()
    assert DiskQueue(tmp_path, MIB).append(b"y", 1, 0) == 11


def test_a_segment_with_the_number_of_one_that_was_read_and_removed_is_read_anew(tmp_path: Path) -> None:
    queue = DiskQueue(tmp_path, MIB)
    for n in range(3):
        queue.append(b"old %d" % n, 1, n)
    queue.close()
    again = DiskQueue(tmp_path, MIB)
    again.acknowledge(drain(again)[-1].sequence)
    again.append(b"new", 1, 9)
    assert payloads(again) == [b"new"]


def test_a_number_that_was_not_given_out_is_not_acknowledged(tmp_path: Path) -> None:
    queue = DiskQueue(tmp_path, MIB)
    queue.append(b"x", 1, 0)
    queue.acknowledge(99)
    assert payloads(queue) == [b"x"]


def test_a_full_queue_gives_up_the_oldest_and_tells_how_much(tmp_path: Path) -> None:
    lost: list[int] = []
    queue = DiskQueue(tmp_path, 4000, on_drop=lost.append, segment_bytes=1000)
    for n in range(100):
        queue.append(b"%03d" % n + b"x" * 97, 2, 0)
        assert queue.bytes <= 4000
    kept = [int(payload[:3]) for payload in payloads(queue)]
    assert kept == list(range(100 - len(kept), 100))
    assert 15 <= len(kept) <= 28
    assert queue.pending_items == 2 * len(kept)
    queue.acknowledge(99)
    assert queue.pending_items == 2
    assert sum(lost) == 2 * (100 - len(kept))


def test_a_record_beyond_the_limit_is_refused_with_the_limit(tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="queue record of 3000 bytes, the limit is 2000 bytes"):
        DiskQueue(tmp_path, 4000).append(b"x" * 3000, 1, 0)


def test_a_folder_belongs_to_one_queue(tmp_path: Path) -> None:
    queue = DiskQueue(tmp_path, MIB)
    with pytest.raises(LockedError, match="in use by another process"):
        DiskQueue(tmp_path, MIB)
    queue.close()
    DiskQueue(tmp_path, MIB).close()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def newer(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4] = 99
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flip])
def test_a_damaged_end_loses_only_itself(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    queue = DiskQueue(tmp_path, MIB)
    for n in range(3):
        queue.append(b"%d" % n, 1, 0)
    queue.close()
    damage(tmp_path / "00000001")
    again = DiskQueue(tmp_path, MIB)
    assert payloads(again) == [b"0", b"1"]
    assert again.damaged_bytes > 0
    again.append(b"new", 1, 0)
    assert payloads(again) == [b"0", b"1", b"new"]


@pytest.mark.parametrize("name", ["00000001", "position"])
def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    queue = DiskQueue(tmp_path, MIB)
    queue.append(b"x", 1, 0)
    queue.close()
    newer(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(UnknownVersionError, match="format version 99, known is 1"):
        DiskQueue(tmp_path, MIB)
    assert (tmp_path / name).read_bytes() == before


def test_a_damaged_position_sends_all_again_under_a_new_epoch(tmp_path: Path) -> None:
    queue = DiskQueue(tmp_path, MIB)
    for n in range(3):
        queue.append(b"%d" % n, 1, 0)
    queue.acknowledge(2)
    queue.close()
    flip(tmp_path / "position")
    again = DiskQueue(tmp_path, MIB)
    assert payloads(again) == [b"0", b"1", b"2"]
    assert again.epoch != queue.epoch


def run_on(disk: FaultyDisk, folder: Path, seed: int) -> tuple[list[bytes], int]:
    """Append and acknowledge at random; what was stored, and the newest acknowledgement that was given."""
    source, stored, acknowledged = random.Random(seed), [], 0
    try:
        queue = DiskQueue(folder, MIB, fs=disk, segment_bytes=400, clock=iter(range(10**6)).__next__)
        for n in range(30):
            payload = b"%d:" % n + source.randbytes(source.randrange(90))
            try:
                sequence = queue.append(payload, 1, 0)
            except (DiskFullError, OSError):
                disk.full = False
                continue
            stored.append((sequence, payload))
            if source.random() < 0.3:
                acknowledged = source.randint(acknowledged, sequence)
                queue.acknowledge(acknowledged)
    except (Crashed, StorageError, OSError):
        pass
    return stored, acknowledged


@pytest.mark.parametrize("kind", ["crash", "short", "eio", "full"])
def test_no_failure_of_the_disk_loses_a_stored_record(tmp_path: Path, kind: str) -> None:
    for at in range(1, 130, 3):
        folder = tmp_path / f"{at}"
        disk = FaultyDisk(at, kind, seed=at)
        stored, acknowledged = run_on(disk, folder, at)
        disk.power_cut()
        for lock in folder.glob("lock"):
            lock.unlink()
        found = {item.sequence: item.payload for item in drain(DiskQueue(folder, MIB))}
        for sequence, payload in stored:
            if sequence > acknowledged:
                assert found.get(sequence) == payload, f"kind {kind}, call {at}, record {sequence}"
