"""The event log finds what a plain filter finds, and keeps every acknowledged event whatever happens."""

from __future__ import annotations

import contextlib
import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from security.eventlog import log as eventlog
from security.eventlog.log import EventLog, EventLogOptions
from security.eventlog.query import TIME_MAX_NS, EventQuery
from security.record import EventRecord
from tests.reference import eventlog as twin
from tests.security.records import T0_NS, record
from tests.tsdb.faults import Crashed, FaultyDisk
from tsdb.errors import DiskFullError, LimitError, StorageError
from tsdb.labels import Matcher, MatchType

OPTIONS = EventLogOptions(background=False)
DAY_NS = 86_400_000_000_000
SEED = int(os.environ.get("VEDETTE_FAULT_SEED", "1"))
EVERY = int(os.environ.get("VEDETTE_FAULT_EVERY", "24"))


def open_log(path: Path, **changes: Any) -> EventLog:
    clock = changes.pop("clock", lambda: T0_NS / 1e9)
    fs = changes.pop("fs", None)
    options = EventLogOptions(**{"background": False, **changes})
    return EventLog(path, options, fs=fs, clock=clock)


def found(log: EventLog, **query: Any) -> list[EventRecord]:
    return [entry for _, entry in log.select(EventQuery(**{"limit": 10_000, **query}))]


TEXTS = (
    "read /etc/shadow by cat",
    "Shell in a_container-01",
    "a" * 70,
    "ÄRGER straße İ",
    "",
    "x y  z",
    "port=443, ip=10.0.0.1",
    " ".join(f"t{i}" for i in range(600)),
)
texts = st.sampled_from(TEXTS)
values = st.one_of(st.none(), st.booleans(), st.integers(-5, 1 << 63), texts, st.lists(texts))
records = st.builds(
    record,
    st.sampled_from(["Shell", "Read file", "Änderung"]),
    priority=st.sampled_from(["Warning", "Critical"]),
    time_ns=st.one_of(st.integers(T0_NS, T0_NS + 5), st.integers(T0_NS, T0_NS + 3 * DAY_NS)),
    message=st.sampled_from(TEXTS),
    fields=st.dictionaries(st.sampled_from(["proc.name", "fd.name", "evt.arg.x", "n"]), values),
    pod=st.sampled_from(["web-1", "web-2", "db"]),
)
matchers = st.builds(
    Matcher,
    st.sampled_from(MatchType),
    st.sampled_from(["rule", "priority", "pod", "absent", "__name__"]),
    st.sampled_from(["Shell", "web-1", "web-.*", "", ".+", "Critical", "vedette_security_events_total"]),
)
words = st.sampled_from(
    (
        *("", "shadow", "/etc/sh", "c/shadow", "CAT", "tainer-0", "_c", "aaaa", "straße", "ärger", "t599"),
        *("i̇", "x y", "y", "443, ip", "=", "10.0", "änderung", "nothing here", "etc/shadow by"),
    )
)
queries = st.tuples(
    st.lists(st.lists(matchers, min_size=1, max_size=2), max_size=2),
    st.sampled_from([0, T0_NS + 2, T0_NS + DAY_NS]),
    st.sampled_from([TIME_MAX_NS, T0_NS + 3, T0_NS + 2 * DAY_NS]),
    words,
    st.sampled_from([1, 3, 10_000]),
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.lists(records, min_size=1, max_size=6), st.sampled_from("  fmr")), max_size=12),
    st.lists(queries, min_size=1, max_size=6),
)
def test_the_log_finds_what_a_plain_filter_finds(
    tmp_path_factory: pytest.TempPathFactory, steps: Any, asked: Any
) -> None:
    path = tmp_path_factory.mktemp("log")
    log, arrived = open_log(path), list[EventRecord]()
    for batch, action in steps:
        log.write(batch)
        arrived += batch
        if action == "f":
            log.flush()
        elif action == "m":
            log.flush()
            merge_all(log)
        elif action == "r":
            log.close()
            log = open_log(path)
    for query in asked:
        matcher_sets, start_ns, end_ns, text, limit = query
        got = found(log, matcher_sets=matcher_sets, start_ns=start_ns, end_ns=end_ns, text=text, limit=limit)
        assert got == twin.select(arrived, *query)
    log.close()


def merge_all(log: EventLog) -> None:
    before = eventlog.MERGE_PARTS
    eventlog.MERGE_PARTS = 2
    try:
        log.merge()
    finally:
        eventlog.MERGE_PARTS = before


def many(count: int, first: int = 0) -> list[EventRecord]:
    return [
        record(f"rule {n % 7}", time_ns=T0_NS + n * 1_000_000, message=f"event number{n} of pid={n}")
        for n in range(first, first + count)
    ]


def test_a_large_part_is_read_a_group_at_a_time(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    arrived = many(10_000)
    log.write(arrived)
    log.flush()
    assert log.parts_count == 1
    assert found(log, limit=3) == arrived[:-4:-1]
    assert found(log, text="number4321") == [arrived[4321]]
    assert found(log, text="number432") == [arrived[n] for n in [*range(4329, 4319, -1), 432]]
    rule = Matcher(MatchType.REGEXP, "rule", "rule [12]")
    got = found(log, matcher_sets=[[rule]], end_ns=T0_NS + 5000 * 1_000_000)
    assert got == [r for r in arrived[5000::-1] if r.output.rule in ("rule 1", "rule 2")]
    # Some 190 bytes a record on the wire.
    assert log.size_bytes < 40 * len(arrived)
    log.close()


def test_small_parts_are_merged_and_old_ones_go_with_the_retention(tmp_path: Path) -> None:
    now = [T0_NS / 1e9]
    log = open_log(tmp_path, clock=lambda: now[0], retention_ms=3_600_000)
    for n in range(9):
        log.write(many(10, n * 10))
        log.flush()
    assert log.parts_count == 9
    log.maintain()
    assert log.parts_count == 2
    assert found(log) == many(90)[::-1]
    now[0] += 3500
    log.write([record(time_ns=T0_NS + 3500 * 1_000_000_000)])
    log.flush()
    now[0] += 200
    log.maintain()
    assert len(found(log)) == 1
    assert log.counts["parts_deleted"] == 2
    log.close()
    assert len(found(open_log(tmp_path))) == 1


def test_the_oldest_parts_go_where_the_size_is_limited(tmp_path: Path) -> None:
    log = open_log(tmp_path, retention_bytes=1)
    log.write(many(10))
    log.maintain()
    assert len(found(log)) == 10
    log.flush()
    log.maintain()
    assert found(log) == []
    log.close()


def test_events_in_memory_become_a_part_when_they_are_many_or_old(tmp_path: Path) -> None:
    now = [T0_NS / 1e9]
    log = open_log(tmp_path, clock=lambda: now[0], memory_records=5)
    log.write(many(4))
    log.maintain()
    assert log.parts_count == 0
    log.write(many(1, 4))
    log.maintain()
    assert log.parts_count == 1
    log.write(many(1, 5))
    now[0] += eventlog.MEMORY_AGE_S
    log.maintain()
    assert log.parts_count == 2
    assert list((tmp_path / "events" / "wal").iterdir()) == []
    log.close()


def test_the_background_thread_writes_a_part_by_itself(tmp_path: Path) -> None:
    log = open_log(tmp_path, background=True, memory_records=5)
    log.write(many(5)).result(5)
    for _ in range(500):
        if log.counts["parts_written"]:
            break
        log._wake.wait(0.01)
    assert log.counts["parts_written"] == 1
    log.close()
    log.close()
    with pytest.raises(StorageError):
        log.write(many(1))


def test_memory_has_a_limit_that_the_error_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "MEMORY_RECORDS_LIMIT", 3)
    log = open_log(tmp_path)
    log.write(many(3))
    with pytest.raises(LimitError, match="limit 3"):
        log.write(many(1))
    assert len(found(log)) == 3
    log.close()


@pytest.mark.parametrize("at", [40, 100, 200, 300, -200, -60, -10])
def test_a_damaged_part_is_set_aside_and_the_others_are_found(tmp_path: Path, at: int) -> None:
    now = [T0_NS / 1e9]
    log = open_log(tmp_path, clock=lambda: now[0])
    for n in range(3):
        log.write(many(200, n * 200))
        log.flush()
        now[0] += 1
    log.close()
    victim = sorted((tmp_path / "events").glob("*.events"))[1]
    data = bytearray(victim.read_bytes())
    spots = [at % len(data)] if at < 0 or at > 60 else range(32, len(data), 97)
    for spot in spots:
        data[spot] ^= 0xFF
    victim.write_bytes(data)
    log = open_log(tmp_path)
    got = found(log, text="number")
    good = [r for n in (2, 0) for r in many(200, n * 200)[::-1]]
    assert got in (good, many(600)[::-1])
    if got == good:
        assert log.counts["quarantined"] == 1
        assert [p.name for p in (tmp_path / "quarantine").iterdir()] == [f"events-{victim.name}"]
        assert not victim.exists()
    log.close()


def test_a_torn_tail_of_the_log_is_cut_off_and_counted(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for n in range(3):
        log.write(many(2, n * 2)).result(5)
    log.close()
    [segment] = (tmp_path / "events" / "wal").iterdir()
    # Zeros fill the last sector; what is torn is the record before them.
    records_bytes = len(segment.read_bytes().rstrip(b"\0"))
    with segment.open("r+b") as file:
        file.truncate(records_bytes - 7)
    log = open_log(tmp_path)
    assert found(log) == many(4)[::-1]
    assert log.counts["torn_tails"] == 1
    assert (tmp_path / "quarantine" / f"events-wal-{segment.name}.tail").exists()
    log.write(many(1, 4)).result(5)
    log.close()
    assert found(open_log(tmp_path)) == many(5)[::-1]


@dataclass
class Life:
    """Two runs of a log with flushes and merges; what was begun and what acknowledged."""

    began: set[int] = field(default_factory=set)
    acked: set[int] = field(default_factory=set)
    refused: int = 0

    def live(self, path: Path, disk: FaultyDisk) -> None:
        for run in range(2):
            log = open_log(path, fs=disk)
            try:
                for n in range(run * 8, run * 8 + 8):
                    with contextlib.suppress(DiskFullError):
                        self.step(log, n, disk)
            finally:
                if disk.dead:
                    log._wal.close()
            log.close()

    def step(self, log: EventLog, n: int, disk: FaultyDisk) -> None:
        self.began.add(n)
        try:
            log.write(many(1, n)).result(10)
            self.acked.add(n)
            if n % 2:
                log.flush()
            if n % 4 == 3:
                merge_all(log)
        except DiskFullError:
            self.refused += 1
            disk.full = False
            raise


def check(path: Path, life: Life) -> None:
    log = open_log(path)
    numbers = [int(r.output.message.rpartition("=")[2]) for r in found(log)]
    log._wal.close()
    assert len(numbers) == len(set(numbers)), numbers
    assert life.acked <= set(numbers) <= life.began


@pytest.mark.parametrize("kind", ["crash", "short", "power", "eio", "full"])
def test_a_disk_that_fails_at_any_call_loses_nothing_acknowledged(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"repeat with VEDETTE_FAULT_SEED={SEED} VEDETTE_FAULT_EVERY={EVERY}")
    monkeypatch.setattr("tsdb.wal.DISK_FULL_RETRY_S", 0.001)
    whole, disk = Life(), FaultyDisk()
    whole.live(tmp_path / "whole", disk)
    check(tmp_path / "whole", whole)
    assert whole.acked == set(range(16))
    start = random.Random(f"{SEED}{kind}").randrange(EVERY)
    for at in range(1 + start, disk.calls + 1, EVERY):
        faulty = FaultyDisk(at, "crash" if kind == "power" else kind, seed=SEED * 1000 + at)
        life, path = Life(), tmp_path / f"{kind}{at}"
        with contextlib.suppress(Crashed, StorageError, OSError):
            life.live(path, faulty)
        if kind == "power":
            faulty.power_cut()
        try:
            check(path, life)
        except AssertionError as error:
            raise AssertionError(f"after {kind} at call {at} of {disk.calls}: {error}") from error
