"""Processes that come faster than anybody looks, numbers that are used again, and arguments meant to hurt.

Each storm runs under the real probe; the table is as after it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.events import Events
from agent.observer import Observer, boot_clock_ns
from agent.probe import program
from agent.probe.layout import ARGS, KIND_EXEC, KIND_EXIT, KIND_FORK, PATH1
from agent.processes import KEEP_ENDED_NS, Process

pytestmark = pytest.mark.root
STORM = 2000
DEPTH = 200
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
RUN_SECONDS = 200
CALLS = ("execve", "openat", "open")
HOSTILE = [
    b"x" * 100_000,
    b"\xff\xfe\x80 not utf-8 \xc3",
    b"two\nlines\rand a carriage return",
    b"\x1b]0;title\x07\x1b[2J\x1b[31mred",
    b"",
    "\u202egnp.exe".encode(),
]


@pytest.fixture(scope="module")
def observer() -> Iterator[Observer]:
    if os.geteuid() != 0:
        pytest.skip("the probe needs root")
    try:
        found = Observer(program.load())
    except program.ProbeError as error:
        pytest.skip(f"no probe on this host: {error}")
    found.start(CALLS)
    yield found
    found.close()


def follow(observer: Observer, until_ns: int) -> list[Events]:
    """Apply all that happened up to a moment."""
    found = []
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        now = boot_clock_ns()
        events = observer.step()
        if events is not None:
            found.append(events)
        if now > until_ns + 50_000_000 and (events is None or events.batch.header["time_ns"][-1] > until_ns):
            return found
        time.sleep(0.005)
    raise AssertionError("the ring never became empty")


def storm(observer: Observer, script: str, cwd: Path, *arguments: str) -> tuple[int, list[Events]]:
    """Run a script, following meanwhile; its pid and the batches."""
    lost = int(observer.counters().lost.sum())
    started = subprocess.Popen([sys.executable, "-S", "-c", script, *arguments], cwd=cwd)
    batches = []
    deadline = time.monotonic() + RUN_SECONDS
    try:
        while started.poll() is None:
            assert time.monotonic() < deadline
            batches += follow(observer, 0)
    finally:
        # One that is too slow must not go on beside the next test.
        started.kill()
        started.wait()
    batches += follow(observer, boot_clock_ns())
    assert started.returncode == 0
    assert int(observer.counters().lost.sum()) == lost
    return started.pid, batches


def children(observer: Observer, batches: list[Events], pid: int) -> list[Process]:
    """The processes that a process made, by the records of their beginning."""
    found = []
    for events in batches:
        header = events.batch.header
        for row in np.flatnonzero((header["kind"] == KIND_FORK) & (header["args"][:, 1] == pid)).tolist():
            process = observer.table.get(int(header["pid"][row]), int(header["start_ns"][row]))
            assert process is not None
            found.append(process)
    return found


def test_a_fork_bomb_is_followed_and_forgotten(observer: Observer, tmp_path: Path) -> None:
    before = len(observer.table)
    script = f"""if True:
    import os
    for _ in range({STORM}):
        child = os.fork()
        if not child: os._exit(0)
        os.waitpid(child, 0)
"""
    pid, batches = storm(observer, script, tmp_path)
    made = children(observer, batches, pid)
    assert len(made) == len({process.key for process in made}) == STORM
    assert {(process.ppid, process.exe_path, process.complete) for process in made} == {
        (pid, os.path.realpath(sys.executable), True)
    }
    assert all(process.ended_ns >= process.start_ns for process in made)
    observer.table.purge(boot_clock_ns() + KEEP_ENDED_NS)
    assert len(observer.table) < before + STORM // 2, "what ended is forgotten"


def test_processes_that_live_at_once_do_not_exceed_the_limit(observer: Observer, tmp_path: Path) -> None:
    script = """if True:
    import os, time
    r, w = os.pipe()
    made = [os.fork() or (os.close(w), os.read(r, 1), os._exit(0)) for _ in range(300)]
    os.close(w)
    for child in made: os.waitpid(child, 0)
"""
    table = observer.table
    # Those that ended would give way.
    table.purge(boot_clock_ns() + KEEP_ENDED_NS)
    kept, left_out = table._limit, table.left_out_count
    table._limit = len(table) + 20
    try:
        storm(observer, script, tmp_path)
        assert len(table) <= table._limit
        assert table.left_out_count > left_out
    finally:
        table._limit = kept


def test_an_exec_storm_has_every_program_once(observer: Observer, tmp_path: Path) -> None:
    script = f"""if True:
    import os
    for n in range({STORM}):
        child = os.posix_spawn('/bin/true', ['true', str(n)], {{}})
        os.waitpid(child, 0)
"""
    pid, batches = storm(observer, script, tmp_path)
    seen = []
    for events in batches:
        header = events.batch.header
        for row in np.flatnonzero((header["kind"] == KIND_EXEC) & (header["ppid"] == pid)).tolist():
            seen.append(events.batch.field(row, ARGS))
            process = observer.table.get(int(header["pid"][row]), int(header["start_ns"][row]))
            assert process is not None
            assert (process.ppid, process.comm) == (pid, "true")
            assert process.exe_path == os.path.realpath("/bin/true")
    assert seen == [f"true\0{n}\0".encode() for n in range(STORM)]


def test_one_process_that_executes_again_and_again(observer: Observer, tmp_path: Path) -> None:
    script = tmp_path / "again"
    script.write_text('#!/bin/sh\n[ "$1" = 0 ] || exec "$0" $(($1 - 1))\n')
    script.chmod(0o755)
    launcher = "import os, sys; os.execv(sys.argv[1], [sys.argv[1], '300'])"
    pid, batches = storm(observer, launcher, tmp_path, str(script))
    times = 0
    for events in batches:
        header = events.batch.header
        times += int(((header["kind"] == KIND_EXEC) & (header["pid"] == pid)).sum())
    assert times == 302
    process = observer.table.current(pid)
    assert process is not None
    assert process.arguments.endswith(b"\x000\0")
    assert process.previous is None or process.previous.previous is None or process.since_row >= 0
    assert sum(item.pid == pid for item in observer.table) == 1, "states of one process are no processes"


def test_a_number_that_is_used_again_is_another_process(observer: Observer, tmp_path: Path) -> None:
    if not LAST_PID.exists():
        pytest.skip("this kernel has no ns_last_pid to choose a number with")
    # In a pid namespace of its own: the host's numbers are nobody's to choose.
    script = """if True:
    import os, time
    for name in (b'first', b'second', b'third'):
        open('/proc/sys/kernel/ns_last_pid', 'w').write('4000')
        child = os.fork()
        if not child:
            os.chdir(b'/' + {b'first': b'usr', b'second': b'etc', b'third': b'var'}[name])
            time.sleep(0.03)
            os._exit(0 if os.getpid() == 4001 else 9)
        assert os.waitpid(child, 0) == (4001, 0)
"""
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-S", "-c", script]
    launcher = f"import os; os.execvp('unshare', {command!r})"
    _, batches = storm(observer, launcher, tmp_path)
    inner = [process for process in observer.table if process.vpid == 4001 and process.ended_ns]
    inner.sort(key=lambda process: process.start_ns)
    assert [process.cwd for process in inner[-3:]] == ["/usr", "/etc", "/var"]
    assert batches


def test_the_same_host_number_twice_keeps_both(observer: Observer, tmp_path: Path) -> None:
    """A number given out again while the old one is remembered, and its children by the right parent."""
    if not LAST_PID.exists():
        pytest.skip("this kernel has no ns_last_pid to choose a number with")
    script = """if True:
    import os, sys, time
    def child(wanted):
        for _ in range(400):
            if wanted: open('/proc/sys/kernel/ns_last_pid', 'w').write(str(wanted - 1))
            made = os.fork()
            if not made:
                if wanted in (0, os.getpid()):
                    if not os.fork(): os._exit(0)
                    os.wait()
                os._exit(0)
            os.waitpid(made, 0)
            if wanted in (0, made): return made
        sys.exit(7)
    first = child(0)
    time.sleep(0.03)
    child(first)
    open('number', 'w').write(str(first))
"""
    lost = int(observer.counters().lost.sum())
    started = subprocess.run([sys.executable, "-S", "-c", script], cwd=tmp_path, check=False)
    batches = follow(observer, boot_clock_ns())
    if started.returncode == 7:
        pytest.skip("others take the number first")
    assert started.returncode == 0
    assert int(observer.counters().lost.sum()) == lost
    number = int((tmp_path / "number").read_text())
    lives = sorted((p for p in observer.table if p.pid == number), key=lambda process: process.start_ns)
    first, second = lives[-2:]
    assert first.start_ns < first.ended_ns <= second.start_ns < second.ended_ns
    made = children(observer, batches, number)[-2:]
    assert [observer.table.parent(process) for process in made] == [first, second]


def test_a_deep_tree_has_its_line_of_ancestors(observer: Observer, tmp_path: Path) -> None:
    script = f"""if True:
    import os
    for depth in range({DEPTH}):
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            os._exit(0)
    open('deepest', 'w').write(str(os.getpid()))
"""
    pid, batches = storm(observer, script, tmp_path)
    deepest = observer.table.current(int((tmp_path / "deepest").read_text()))
    assert deepest is not None
    parents = {}
    for events in batches:
        header = events.batch.header
        for row in np.flatnonzero(header["kind"] == KIND_FORK).tolist():
            parents[int(header["pid"][row])] = int(header["args"][row, 1])
    line, at = [], deepest.pid
    while at != pid:
        at = parents[at]
        line.append(at)
    assert len(line) == DEPTH
    walked, process = [], deepest
    while process.pid != pid:
        parent = observer.table.parent(process)
        assert parent is not None
        walked.append(parent.pid)
        process = parent
    assert walked == line
    assert [found.pid for found in observer.table.ancestors(deepest)] == line[:64]


def test_hostile_arguments_are_bounded_and_whole(observer: Observer, tmp_path: Path) -> None:
    script = f"""if True:
    import os
    for argument in {HOSTILE!r}:
        child = os.posix_spawn('/bin/true', [b'true', argument], {{b'E': argument}})
        os.waitpid(child, 0)
"""
    pid, batches = storm(observer, script, tmp_path)
    seen, shown = [], []
    for events in batches:
        header = events.batch.header
        for row in np.flatnonzero((header["kind"] == KIND_EXEC) & (header["ppid"] == pid)).tolist():
            seen.append(events.batch.field(row, ARGS))
            shown.append(events.arguments(row))
    assert seen == [(b"true\0" + argument + b"\0")[:4096] for argument in HOSTILE]
    assert not [text for text in shown if set(text) & {"\n", "\r", "\x1b", "\x07"}]


def test_hostile_names_of_files(observer: Observer, tmp_path: Path) -> None:
    names = [name for name in HOSTILE if name and len(name) < 255] + [b"a/" * 2000 + b"end", b"y" * 5000]
    script = f"""if True:
    import os
    for name in {names!r}:
        try: os.open(name, os.O_RDONLY)
        except OSError: pass
"""
    pid, batches = storm(observer, script, tmp_path)
    seen, shown = [], []
    for events in batches:
        header = events.batch.header
        for row in events.rows_of("openat").tolist():
            if header["pid"][row] == pid and header["result"][row] in (-2, -36, -20):
                seen.append(events.batch.field(row, PATH1))
                shown.append(events.arguments(row))
    expected = [name[:4095] for name in names]
    # The interpreter looks for files of its own.
    assert [name for name in seen if name in expected] == expected
    assert not [text for text in shown if set(text) & {"\n", "\r", "\x1b", "\x07"}]


def test_a_killed_process_has_its_end(observer: Observer, tmp_path: Path) -> None:
    started = subprocess.Popen(["/bin/sleep", "60"], cwd=tmp_path)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    batches = follow(observer, boot_clock_ns())
    ends = [
        int(events.batch.header["result"][row])
        for events in batches
        for row in np.flatnonzero(
            (events.batch.header["kind"] == KIND_EXIT) & (events.batch.header["pid"] == started.pid)
        ).tolist()
    ]
    assert ends == [signal.SIGKILL]


IDENTITIES = {
    "setreuid(11, 22)": ((11, 22), (0, 0)),
    "setregid(33, 44)": ((0, 0), (33, 44)),
    "setresuid(1, 2, 3)": ((1, 2), (0, 0)),
    "setresgid(4, 5, 6)": ((0, 0), (4, 5)),
    "seteuid(77)": ((0, 77), (0, 0)),
    "setegid(78)": ((0, 0), (0, 78)),
    "setuid(1234)": ((1234, 1234), (0, 0)),
}


@pytest.mark.parametrize("call", IDENTITIES)
def test_who_a_process_is_follows_every_call(observer: Observer, tmp_path: Path, call: str) -> None:
    pid, _ = storm(observer, f"import os; os.{call}", tmp_path)
    process = observer.table.current(pid)
    assert process is not None
    users, groups = IDENTITIES[call]
    assert ((process.uid, process.euid), (process.gid, process.egid)) == (users, groups)
    assert bool(process.capabilities[2]) == (process.euid == 0)


def test_a_users_own_files_change_nothing_else(observer: Observer, tmp_path: Path) -> None:
    script = "import ctypes; c = ctypes.CDLL(None); c.setfsuid(55); c.setfsgid(56)"
    pid, _ = storm(observer, script, tmp_path)
    process = observer.table.current(pid)
    assert process is not None
    assert (process.uid, process.euid, process.gid, process.egid) == (0, 0, 0, 0)
    chown_and_read_search = 0b111
    assert not process.capabilities[2] & chown_and_read_search
    assert process.capabilities[1] & chown_and_read_search


def test_an_agent_in_a_pid_namespace_knows_its_own_number(tmp_path: Path) -> None:
    if ctypes.CDLL(None).geteuid() != 0:
        pytest.skip("the probe needs root")
    script = """if True:
    import logging, os, subprocess
    from agent.observer import Observer
    from agent.probe import program
    logging.basicConfig(format='%(message)s')
    try: probe = program.load()
    except program.ProbeError as error: raise SystemExit(f'none: {error}')
    observer = Observer(probe)
    observer.start(['openat'])
    own = [open('/dev/null').close() for _ in range(100)]
    child = subprocess.run(['/bin/true'])
    import time
    from agent.observer import boot_clock_ns
    end, pids, names = boot_clock_ns(), [], set()
    while boot_clock_ns() < end + 300_000_000:
        events = observer.step()
        if events is not None:
            pids += events.batch.header['pid'].tolist()
            names |= {process.comm for process in observer.table if process.started_ns}
        time.sleep(0.01)
    print(os.getpid(), probe.host_pid, probe.host_pid in pids, 'true' in names, len(observer.table) < 5000)
    observer.close()
"""
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if "none: " in done.stderr:
        pytest.skip(f"no probe on this host: {done.stderr}")
    inner, outer, *truths = done.stdout.split()
    assert inner == "1"
    assert int(outer) > 1
    assert truths == ["False", "True", "True"], "not itself, its child, and no invented processes"
    assert done.stderr.count("This agent runs in a pid namespace") == 1


def test_a_kernel_that_refuses_plain_loads_still_has_a_probe(tmp_path: Path) -> None:
    try:
        probe = program.load(direct=False)
    except program.ProbeError as error:
        pytest.skip(f"no probe on this host: {error}")
    slow = Observer(probe)
    try:
        slow.start(["openat"])
        pid, _ = storm(slow, "open('name', 'w')", tmp_path)
        process = slow.table.current(pid)
        assert process is not None
        assert (process.ppid, process.cwd) == (os.getpid(), str(tmp_path))
        assert process.ended_ns > process.started_ns > process.start_ns
    finally:
        slow.close()
