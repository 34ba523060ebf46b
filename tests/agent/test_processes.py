"""The process table: made-up records for pid reuse and bounds, real processes for everything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent import procfiles
from agent.events import Events
from agent.probe.layout import (
    ARGS,
    CALL_LIMIT,
    CGROUP,
    CWD,
    EXE,
    KIND_CALL,
    KIND_EXEC,
    KIND_EXIT,
    KIND_FORK,
    PROCESS,
    PROCESS_STRUCT,
)
from agent.probe.ringbuffer import Batch, TimeOrder
from agent.processes import KEEP_ENDED_NS, STATE_CALLS, Process, ProcessTable
from security.fields.containerids import ContainerPath
from tests.agent.conftest import Watcher
from tests.agent.test_events import events_of
from tests.agent.test_ring import batch_of, record

SECOND = 1_000_000_000
CONTAINER = "5" * 64


def info_bytes(**values: int) -> bytes:
    info = np.zeros(1, PROCESS_STRUCT)
    for name, value in values.items():
        info[name] = value
    return info.tobytes()


def made_up(rows: list[tuple[int, int, int, int, int]], fields: dict[int, bytes] | None = None) -> Events:
    """Rows are (kind, time s, pid, start s, parent pid); every parent started at second 1."""
    slots = {PROCESS: info_bytes(uid=7, vpid=3), **(fields or {})}
    batch = batch_of([record(time * SECOND, slots if kind != KIND_EXIT else {}) for kind, time, *_ in rows])
    for row, (kind, _, pid, start, parent) in enumerate(rows):
        batch.header["kind"][row], batch.header["nr"][row] = kind, CALL_LIMIT + kind
        batch.header["pid"][row], batch.header["start_ns"][row] = pid, start * SECOND
        batch.header["ppid"][row], batch.header["parent_start_ns"][row] = parent, SECOND
        batch.header["args"][row, 1] = parent
        batch.header["comm"][row] = b"name"
        if kind == KIND_EXEC:
            batch.header["nr"][row] = 59
    return events_of(batch)


@pytest.fixture
def table(tmp_path: Path) -> ProcessTable:
    """A table without a `/proc`: it knows events only."""
    return ProcessTable(tmp_path)


def test_a_child_has_what_its_parent_had(table: ProcessTable) -> None:
    execution = {
        ARGS: b"/bin/cat\0-n\0a b\0",
        EXE: b"cat\0bin\0",
        CWD: b"home\0",
        CGROUP: f"docker-{CONTAINER}.scope\0system.slice\0".encode(),
    }
    table.apply(made_up([(KIND_EXEC, 2, 10, 1, 1)], execution))
    table.apply(made_up([(KIND_FORK, 3, 11, 3, 10)]))
    child = table.get(11, 3 * SECOND)
    assert child is not None
    assert (child.exe_path, child.cwd, child.exe) == ("/bin/cat", "/home", "/bin/cat")
    assert child.command_line == "name -n a b"
    assert child.container == ContainerPath(CONTAINER, "docker")
    assert (child.uid, child.vpid, child.started_ns) == (7, 3, 0)
    assert table.parent(child) is table.get(10, SECOND)


def test_a_reused_pid_is_another_process_and_no_ones_parent(table: ProcessTable) -> None:
    table.apply(made_up([(KIND_EXEC, 1, 10, 1, 1), (KIND_FORK, 2, 11, 2, 10), (KIND_EXIT, 3, 10, 1, 1)]))
    table.apply(made_up([(KIND_EXEC, 4, 10, 4, 1)]))
    child, old, new = table.get(11, 2 * SECOND), table.get(10, SECOND), table.get(10, 4 * SECOND)
    assert child is not None
    assert old is not None
    assert old is not new
    assert table.parent(child) is old
    assert table.current(10) is new


def test_ended_processes_stay_for_some_minutes(table: ProcessTable) -> None:
    table.apply(made_up([(KIND_EXEC, 1, 10, 1, 1), (KIND_EXIT, 5, 10, 1, 1)]))
    assert table.purge(4 * SECOND + KEEP_ENDED_NS) == 0
    assert table.get(10, SECOND) is not None
    assert table.purge(5 * SECOND + KEEP_ENDED_NS) == 1
    assert (len(table), table.current(10)) == (0, None)


def test_a_fork_bomb_is_bounded_and_counted(tmp_path: Path) -> None:
    table = ProcessTable(tmp_path, limit=50)
    table.apply(made_up([(KIND_FORK, 2, pid, 2, 1) for pid in range(100, 200)]))
    assert (len(table), table.left_out_count) == (50, 50)
    table.apply(made_up([(KIND_EXIT, 3, pid, 2, 1) for pid in range(100, 150)]))
    table.apply(made_up([(KIND_FORK, 4, 300, 4, 1)]))
    assert (len(table), table.left_out_count) == (1, 50)


def test_deep_trees_and_loops_end(table: ProcessTable) -> None:
    table.apply(made_up([(KIND_FORK, 2, pid, 1, pid - 1) for pid in range(100, 300)]))
    last = table.current(299)
    assert last is not None
    assert [process.pid for process in table.ancestors(last)] == list(range(298, 234, -1))
    table.apply(made_up([(KIND_FORK, 3, 400, 1, 401), (KIND_FORK, 3, 401, 1, 400)]))
    looped = table.current(400)
    assert looped is not None
    assert [process.pid for process in table.ancestors(looped)] == [401]


def test_an_orphan_gets_the_parent_its_next_record_names(table: ProcessTable) -> None:
    table.apply(made_up([(KIND_EXEC, 1, 9, 1, 1), (KIND_EXEC, 1, 10, 1, 1), (KIND_FORK, 2, 11, 2, 10)]))
    table.apply(made_up([(KIND_EXIT, 3, 10, 1, 1), (KIND_EXEC, 4, 11, 2, 9)]))
    orphan = table.get(11, 2 * SECOND)
    assert orphan is not None
    assert [process.pid for process in table.ancestors(orphan)] == [9]


def test_a_new_parent_holds_from_the_record_that_names_it_on(table: ProcessTable) -> None:
    """Also for the rows between it and the next change within the same batch."""
    table.apply(made_up([(KIND_EXEC, 1, 9, 1, 1), (KIND_EXEC, 1, 10, 1, 1), (KIND_FORK, 2, 11, 2, 10)]))
    batch = made_up([(KIND_CALL, 3, 11, 2, parent) for parent in (10, 10, 9)] + [(KIND_EXEC, 4, 11, 2, 9)])
    batch.batch.header["nr"][:3] = 39  # getpid, which changes nothing
    table.apply(batch)
    states = [table.at(11, 2 * SECOND, row) for row in range(4)]
    assert [state and state.ppid for state in states] == [10, 10, 9, 9]


def test_a_lost_end_is_noticed_in_proc(table: ProcessTable) -> None:
    table.apply(made_up([(KIND_EXEC, 1, 10, 1, 1)]))
    assert table.sweep(9 * SECOND) == 1
    process = table.current(10)
    assert process is not None
    assert process.ended_ns == 9 * SECOND


CGROUP_FILES = [
    (b"0::/user.slice\n", ("/user.slice",)),
    (b"12:pids:/a\n4:cpu,cpuacct:/b\n3:memory:/c\n1:name=systemd:/d\n0::/e\n", ("/c", "/a", "/b", "/e")),
    (b"garbage\n", ("",)),
    (b"", ()),
]


@pytest.mark.parametrize(("data", "expected"), CGROUP_FILES)
def test_the_preferred_hierarchy_comes_first(data: bytes, expected: tuple[str, ...]) -> None:
    assert procfiles.cgroup_paths(data)[: len(expected)] == expected


def test_proc_seeds_this_very_process() -> None:
    table = ProcessTable()
    assert table.seed() > 1
    own = table.current(os.getpid())
    assert own is not None
    assert own.argument_list == procfiles.read(os.getpid()).arguments.decode().removesuffix("\0").split("\0")  # type: ignore[union-attr]
    assert (own.ppid, own.uid, own.cwd) == (os.getppid(), os.getuid(), os.getcwd())
    assert own.exe_path == os.readlink("/proc/self/exe")
    assert (own.pgid, own.sid) == (os.getpgrp(), os.getsid(0))
    parent = table.parent(own)
    assert parent is not None
    assert parent.pid == os.getppid()
    assert table.ancestors(own)[-1].pid == 1


def test_a_process_that_is_gone_is_no_process(tmp_path: Path) -> None:
    assert procfiles.read(1 << 22) is None
    (tmp_path / "5").mkdir()
    (tmp_path / "5/stat").write_text("5 (half) S 1")
    assert procfiles.read(5, tmp_path) is None


def follow(watcher: Watcher, table: ProcessTable) -> Batch:
    """Apply everything that is in the ring; returns it in order of time."""
    batch = TimeOrder(window_ns=0).push(watcher.drain(), now_ns=1 << 62)
    assert batch is not None
    table.apply(events_of(batch))
    return batch


@pytest.mark.root
def test_a_shell_and_its_children_are_followed(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch(*STATE_CALLS)
    table = ProcessTable()
    table.seed()
    script = "cd sub && sleep 0 ; exec sleep 0.01"
    (tmp_path / "sub").mkdir()
    shell = subprocess.Popen(["/bin/sh", "-c", script], cwd=tmp_path, env={"PATH": "/usr/bin", "X": "y"})
    shell.wait()
    batch = follow(watcher, table)
    process = table.current(shell.pid)
    assert process is not None
    assert process.ended_ns > 0
    assert (process.comm, process.command_line) == ("sleep", "sleep 0.01")
    assert (process.cwd, process.exe_path) == (f"{tmp_path}/sub", "/usr/bin/sleep")
    assert b"X=y\0" in process.environment
    assert next(found.pid for found in table.ancestors(process)) == os.getpid()
    children = {int(pid) for pid in batch.header["pid"][batch.header["ppid"] == shell.pid]}
    (child,) = (table.current(pid) for pid in children)
    assert child is not None
    assert (child.command_line, child.cwd) == ("sleep 0", f"{tmp_path}/sub")
    assert table.parent(child) is process


@pytest.mark.root
def test_credentials_sessions_and_directories_follow_the_calls(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch(*STATE_CALLS)
    table = ProcessTable()
    table.seed()
    script = "import os; os.fchdir(os.open('/usr', 0)); os.setsid(); os.setresgid(5, 6, 7); os.setuid(1234)"
    pid = subprocess.Popen([sys.executable, "-S", "-c", script], cwd=tmp_path)
    assert pid.wait() == 0
    follow(watcher, table)
    process = table.current(pid.pid)
    assert process is not None
    assert (process.uid, process.euid, process.gid, process.egid) == (1234, 1234, 5, 6)
    assert (process.sid, process.pgid, process.cwd) == (pid.pid, pid.pid, "/usr")


@pytest.mark.root
def test_seeding_never_overwrites_what_an_event_told(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch(*STATE_CALLS)
    table = ProcessTable()
    process = subprocess.Popen(
        ["/bin/cat"], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        # The record of the execution is there once the new program has answered.
        process.stdin.write(b"x")
        assert process.stdout.read(1) == b"x"
        follow(watcher, table)
        told = table.current(process.pid)
        assert told is not None
        assert told.started_ns > 0
        table.seed()
        assert table.current(process.pid) is told
        parent = table.current(os.getpid())
        assert parent is not None
        assert isinstance(parent, Process)
        assert table.parent(told) is parent
    finally:
        process.communicate()
