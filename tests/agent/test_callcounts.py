"""Bytes, errors and durations of calls that the kernel program adds up, with real programs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.callcounts import CallCounts, measured_calls
from agent.observer import COST_INTERVAL_NS, Observer
from agent.probe import program
from agent.probe.callcosts import CALLS, CLASSES, COST, DURATION_BUCKETS, FIRST_BOUND_SECONDS, NO_BYTES
from agent.processes import Process, ProcessTable
from agent.processgroups import GroupNames, GroupRule
from ingest.gathered import Gathered

WAIT_SECONDS = 20.0
Series = dict[tuple[str, ...], float]


def entry(pid: int, kind: str, **amounts: int) -> NDArray[Any]:
    found = np.zeros(1, COST)
    found["pid"], found["start_ns"], found["class"] = pid, 1_000_000_000, CLASSES.index(kind)
    for name, value in amounts.items():
        found[name] = value
    return found


def timed(pid: int, kind: str, durations_ns: list[int]) -> NDArray[Any]:
    """The slow reference of the program's `measure`."""
    found = entry(pid, kind, calls=len(durations_ns), timed=len(durations_ns), duration_ns=sum(durations_ns))
    for duration in durations_ns:
        bucket = 0
        while bucket < DURATION_BUCKETS - 1 and duration / 1e9 >= FIRST_BOUND_SECONDS * 2.0**bucket:
            bucket += 1
        found["buckets"][0, bucket] += 1
    return found


def series(counts: CallCounts, name: str, group: str) -> Series:
    gathered = Gathered()
    counts.collect(gathered)
    return {
        values[6:]: value
        for (metric, _, values), value in gathered.values.items()
        if metric == f"vedette_process_{name}" and values[0] == group
    }


def table_of(*pids: int) -> ProcessTable:
    table = ProcessTable(None)
    for pid in pids:
        table._add(Process(pid, 1_000_000_000, 1, 0, f"worker{pid}"))
    return table


def test_amounts_are_added_by_group_and_class() -> None:
    counts = CallCounts(GroupNames([GroupRule("workers", comm=frozenset({"worker1", "worker2"}))]))
    table = table_of(1, 2, 3)
    for _ in range(2):
        costs = [
            entry(1, "read", calls=10, errors=2, bytes=700),
            entry(2, "read", calls=1, bytes=1 << 40),
            entry(3, "send", calls=4, errors=4),
            entry(9, "write", calls=5, bytes=50),
        ]
        counts.consume(np.concatenate(costs), table)
    assert series(counts, "calls_total", "workers") == {("read",): 22}
    assert series(counts, "call_errors_total", "workers") == {("read",): 4}
    assert series(counts, "call_bytes_total", "workers") == {("read",): 2 * (700 + (1 << 40))}
    assert series(counts, "calls_total", "worker3") == {("send",): 8}
    assert series(counts, "call_bytes_total", "worker3") == {}
    assert series(counts, "calls_total", "other") == {("write",): 10}, (
        "nobody's calls are invented for nobody"
    )
    assert series(counts, "call_duration_seconds_count", "workers") == {}


def test_durations_become_a_cumulative_histogram() -> None:
    counts = CallCounts(GroupNames([]))
    durations = [100, 953, 954, 5_000, 70_000, 1_000_000_000, 20 * 10**9, 10**12]
    counts.consume(timed(1, "connect", durations), table_of(1))
    buckets = series(counts, "call_duration_seconds_bucket", "worker1")
    bounds = [float(bound) for _, bound in buckets if bound != "+Inf"]
    assert bounds == sorted(bounds)
    assert bounds[0] == FIRST_BOUND_SECONDS
    for (_, bound), value in buckets.items():
        if bound == "+Inf":
            assert value == len(durations)
        else:
            assert value == sum(duration / 1e9 < float(bound) for duration in durations)
    assert series(counts, "call_duration_seconds_sum", "worker1") == {("connect",): sum(durations) / 1e9}
    assert series(counts, "call_duration_seconds_count", "worker1") == {("connect",): len(durations)}


def test_groups_beyond_the_limit_are_counted_together() -> None:
    counts = CallCounts(GroupNames([]), limit=2)
    costs = np.concatenate([entry(pid, "read", calls=1) for pid in range(1, 6)])
    counts.consume(costs, table_of(*range(1, 6)))
    assert series(counts, "calls_total", "other") == {("read",): 3}


def test_calls_without_data_are_those_that_are_reported_anyway() -> None:
    few = measured_calls(data=False)
    assert few < measured_calls(data=True) == CALLS.keys()
    assert {"openat", "connect", "execve"} <= few
    assert not few & {"read", "sendto", "splice"}
    assert all((CALLS[name] & ~NO_BYTES) - 1 in range(len(CLASSES)) for name in CALLS)


@pytest.fixture(scope="module")
def observer() -> Iterator[Observer]:
    if os.geteuid() != 0:
        pytest.skip("the probe needs root")
    try:
        found = Observer(program.load())
    except program.ProbeError as error:
        pytest.skip(f"no probe on this host: {error}")
    found.start([])
    found.probe.measure(measured_calls(data=True))
    yield found
    found.close()


def measured(observer: Observer, script: str, cwd: Path) -> CallCounts:
    """What was counted of a program, under the group `measured`."""
    code = "import os, socket, sys, time\n" + script
    started = subprocess.Popen([sys.executable, "-S", "-c", code], cwd=cwd)
    assert started.wait(30) == 0
    counts = CallCounts(GroupNames([GroupRule("measured", command_line=_Contains(script))]))  # type: ignore[arg-type]
    deadline = time.monotonic() + WAIT_SECONDS
    takes = 0
    while takes < 2:
        assert time.monotonic() < deadline
        observer.step()
        costs = observer.costs()
        if costs is not None:
            takes += 1
            counts.consume(costs[costs["pid"] == started.pid], observer.table)
        time.sleep(0.02)
    return counts


class _Contains:
    """Finds a text: part of a rule."""

    def __init__(self, text: str) -> None:
        self._text = text

    def search(self, line: str) -> bool:
        return self._text[:40] in line


@pytest.mark.root
def test_a_program_is_counted_exactly(observer: Observer, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"x" * 100_000)
    script = """if True:
    fd = os.open('data', os.O_RDONLY)
    out = os.open('out', os.O_CREAT | os.O_WRONLY)
    for _ in range(1000): os.write(out, os.pread(fd, 77, 0))
    for _ in range(3):
        try: os.write(fd, b'refused')
        except OSError: pass
    a, b = socket.socketpair()
    a.setblocking(False)
    for _ in range(500): b.send(b'y' * 9); a.recv(100)
    for _ in range(5):
        try: a.recv(1)
        except BlockingIOError: pass
"""
    counts = measured(observer, script, tmp_path)
    calls = series(counts, "calls_total", "measured")
    moved = series(counts, "call_bytes_total", "measured")
    failed = series(counts, "call_errors_total", "measured")
    assert calls["write",] == 1003
    assert moved["write",] == 77_000
    assert failed["write",] == 3
    assert (calls["send",], moved["send",]) == (500, 4500)
    assert (calls["receive",], moved["receive",]) == (505, 4500)
    assert ("receive",) not in failed, "a socket that has nothing yet is no error"
    # The interpreter reads its own files too.
    assert calls["read",] >= 1000
    assert moved["read",] >= 77_000
    timed_calls = series(counts, "call_duration_seconds_count", "measured")
    assert 0 < timed_calls["write",] <= 1003


@pytest.mark.root
def test_a_call_that_waits_has_its_duration(observer: Observer, tmp_path: Path) -> None:
    script = """if True:
    r, w = os.pipe()
    if os.fork() == 0:
        for _ in range(3): time.sleep(0.3); os.write(w, b'.')
        os._exit(0)
    for _ in range(3): os.read(r, 1)
    os.wait()
"""
    counts = measured(observer, script, tmp_path)
    assert series(counts, "call_duration_seconds_sum", "measured")["read",] > 0.6
    buckets = series(counts, "call_duration_seconds_bucket", "measured")
    short = max(value for (name, le), value in buckets.items() if name == "read" and float(le) < 0.25)
    whole = series(counts, "call_duration_seconds_count", "measured")["read",]
    assert whole - short >= 2


@pytest.mark.root
def test_what_has_no_place_is_counted_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("the probe needs root")
    monkeypatch.setattr(program, "COST_ENTRIES", 1)
    try:
        probe = program.load(ring_pages=16)
    except program.ProbeError as error:
        pytest.skip(f"no probe on this host: {error}")
    try:
        probe.measure(["write", "pread64"])
        script = "import os\nf = os.open('f', 66)\nfor _ in range(50): os.write(f, b'1'); os.pread(f, 1, 0)"
        subprocess.run([sys.executable, "-S", "-c", script], cwd=tmp_path, check=True)
        probe.measure([])
        costs = np.concatenate([probe.take_costs(), probe.take_costs()])
        lost = int(probe.counters().lost[:, program.layout.COUNT_NO_COST].sum())
        nobody = costs[costs["pid"] == 0]
        assert len(costs) - len(nobody) <= 1
        assert int(nobody["calls"].sum()) == lost >= 50
        assert int(costs["calls"].sum()) >= 100
        assert len(probe.take_costs()) == 0
    finally:
        probe.close()


def test_an_interval_is_long_enough_for_the_program_that_is_inside() -> None:
    assert COST_INTERVAL_NS >= 20_000_000
