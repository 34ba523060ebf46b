"""The program in the running kernel: real actions and the whole record each leaves."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from agent.probe import layout, program
from agent.probe.btf import BTF
from agent.probe.headers import HeadersError
from agent.probe.layout import (
    ADDRESS,
    ARGS,
    CGROUP,
    CWD,
    DESCRIPTOR_STRUCT,
    DIR1,
    ENV,
    EXE,
    FD,
    FD_PATH,
    KIND_CALL,
    KIND_EXEC,
    KIND_EXIT,
    KIND_FORK,
    PATH1,
    PATH2,
    PROCESS,
    PROCESS_STRUCT,
    SOCKET,
    TUPLE_STRUCT,
)
from agent.probe.ringbuffer import Batch, names_to_path
from security.fields.syscalls import numbers
from tests.agent.btfblob import small_kernel
from tests.agent.conftest import Watcher

pytestmark = pytest.mark.root
NR = numbers("x86_64")


def run(script: str, cwd: Path, **environment: str) -> int:
    """Run Python code in a fresh process; returns its pid."""
    environment = {"PATH": "/usr/bin", **environment}
    process = subprocess.Popen([sys.executable, "-S", "-c", script], cwd=cwd, env=environment)
    assert process.wait(30) == 0
    return process.pid


def text(batch: Batch, row: int, slot: int) -> str:
    data = batch.field(row, slot)
    assert data is not None, layout.SLOTS[slot]
    return data.decode()


def path(batch: Batch, row: int, slot: int) -> str:
    data = batch.field(row, slot)
    assert data is not None, layout.SLOTS[slot]
    return names_to_path(data)


def rows(batch: Batch, call: str) -> list[int]:
    found = (batch.header["kind"] == KIND_CALL) & (batch.header["nr"] == NR[call])
    return [int(row) for row in found.nonzero()[0]]


def test_an_execution_is_one_record_with_all_of_the_new_process(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("execve")
    process = subprocess.Popen(["/bin/sh", "-c", "exit 3"], cwd=tmp_path, env={"A": "b", "C": "d e"})
    process.wait()
    batch = watcher.of(process.pid)
    assert batch.header["kind"].tolist()[-2:] == [KIND_EXEC, KIND_EXIT]
    row = len(batch) - 2
    assert text(batch, row, PATH1) == "/bin/sh"
    assert text(batch, row, ARGS) == "/bin/sh\0-c\0exit 3\0"
    assert text(batch, row, ENV) == "A=b\0C=d e\0"
    assert path(batch, row, CWD) == str(tmp_path)
    assert path(batch, row, EXE) == os.path.realpath("/bin/sh")
    header = batch.header[row]
    assert (header["ppid"], header["comm"], header["uid"]) == (os.getpid(), b"sh", os.geteuid())
    own_start = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    assert header["parent_start_ns"] // 10_000_000 == own_start
    info = batch.structs(PROCESS, PROCESS_STRUCT)[row]
    status = os.stat("/bin/sh")
    assert (info["exe_inode"], info["exe_mode"]) == (status.st_ino, status.st_mode)
    assert (info["exe_mtime_ns"], info["exe_ctime_ns"]) == (status.st_mtime_ns, status.st_ctime_ns)
    assert (info["pgid"], info["sid"]) == (os.getpgrp(), os.getsid(0))
    groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    assert path(batch, row, CGROUP) in {group for _, _, group in groups}
    assert batch.header["result"][row + 1] == 3 << 8


def test_forks_name_parent_and_child(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("clone", "fork")
    pid = run("import os; child = os.fork()\nif child: os.waitpid(child, 0)", tmp_path)
    batch = watcher.drain()
    assert batch is not None
    forks = (batch.header["kind"] == KIND_FORK) & (batch.header["ppid"] == pid)
    assert forks.sum() == 1
    child = batch.header[forks.nonzero()[0][0]]
    assert child["args"][1] == pid
    assert child["pid"] > pid
    calls = (batch.header["kind"] == KIND_CALL) & (batch.header["nr"] == NR["clone"])
    results = {(int(h["pid"]), int(h["result"])) for h in batch.header[calls]}
    assert {(pid, int(child["pid"])), (int(child["pid"]), 0)} <= results


def test_opens_carry_the_path_as_given_and_as_it_is(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("openat", "openat2")
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    script = (
        "import os; os.open('link', os.O_RDONLY); d = os.open('.', 0); os.open('new', 65, 0o640, dir_fd=d)"
    )
    batch = watcher.of(run(script, tmp_path))
    opened = {text(batch, row, PATH1): row for row in rows(batch, "openat")}
    row = opened["link"]
    assert (path(batch, row, FD_PATH), path(batch, row, CWD)) == (f"{tmp_path}/real", str(tmp_path))
    info = batch.structs(FD, DESCRIPTOR_STRUCT)
    assert info[row]["inode"] == (tmp_path / "real").stat().st_ino
    row = opened["new"]
    assert (path(batch, row, DIR1), path(batch, row, FD_PATH)) == (str(tmp_path), f"{tmp_path}/new")
    assert batch.header["args"][row, 2] & 65 == 65
    assert info[row]["mode"] == (tmp_path / "new").stat().st_mode


def test_a_failed_open_has_its_error_and_no_descriptor(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("openat")
    batch = watcher.of(run("try: open('missing')\nexcept OSError: pass", tmp_path))
    (row,) = (row for row in rows(batch, "openat") if text(batch, row, PATH1) == "missing")
    assert batch.header["result"][row] == -2
    assert batch.field(row, FD_PATH) is None


def test_a_long_path_is_read_whole(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("openat")
    name = "/".join(["n" * 200] * 10)
    batch = watcher.of(run(f"try: open({name!r})\nexcept OSError: pass", tmp_path))
    assert name in {text(batch, row, PATH1) for row in rows(batch, "openat")}


def test_connections_carry_address_and_tuple(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("socket", "connect", "accept4", "bind", "listen")
    script = """
import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(5)
c = socket.socket(); c.connect(s.getsockname()); a, _ = s.accept()
print(*s.getsockname(), *c.getsockname())"""
    command = [sys.executable, "-S", "-c", script]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    _, server, _, client = process.communicate(timeout=30)[0].split()
    batch = watcher.of(process.pid)
    tuples = batch.structs(SOCKET, TUPLE_STRUCT)
    (row,) = rows(batch, "connect")
    address = batch.field(row, ADDRESS)
    assert address is not None
    assert (int.from_bytes(address[2:4]), address[4:8]) == (int(server), bytes([127, 0, 0, 1]))
    assert (tuples[row]["family"], tuples[row]["protocol"]) == (socket.AF_INET, socket.IPPROTO_TCP)
    assert (tuples[row]["local_port"], tuples[row]["remote_port"]) == (int(client), int(server))
    (row,) = rows(batch, "accept4")
    assert (tuples[row]["local_port"], tuples[row]["remote_port"]) == (int(server), int(client))
    assert bytes(tuples[row]["remote"][:4]) == bytes([127, 0, 0, 1])
    assert len(rows(batch, "socket")) == 2
    assert batch.header["args"][rows(batch, "listen")[0], 1] == 5


def test_calls_with_two_paths(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("rename", "symlink", "link", "unlink", "mkdir", "rmdir", "chmod")
    script = """
import os
open("a", "w"); os.rename("a", "b"); os.symlink("b", "/tmp/../" + os.getcwd() + "/s"); os.link("b", "l")
os.chmod("b", 0o4755); os.unlink("l"); os.mkdir("d", 0o700); os.rmdir("d")"""
    batch = watcher.of(run(script, tmp_path))
    both = [(text(batch, rows(batch, call)[0], PATH1), text(batch, rows(batch, call)[0], PATH2))
            for call in ("rename", "symlink", "link")]  # fmt: skip
    assert both == [("a", "b"), ("b", f"/tmp/..{'/'}{tmp_path}/s"), ("b", "l")]
    assert batch.field(rows(batch, "symlink")[0], CWD) is None
    assert path(batch, rows(batch, "rename")[0], CWD) == str(tmp_path)
    assert batch.header["args"][rows(batch, "chmod")[0], 1] == 0o4755
    assert [text(batch, rows(batch, call)[0], PATH1) for call in ("unlink", "mkdir", "rmdir")] == [
        "l",
        "d",
        "d",
    ]


def test_a_program_in_memory_is_seen_as_such(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("memfd_create", "execve")
    script = """
import os
fd = os.memfd_create("payload", 0); os.write(fd, open("/bin/true", "rb").read())
os.execve(f"/proc/self/fd/{fd}", ["true"], {})"""
    batch = watcher.of(run(script, tmp_path))
    (row,) = rows(batch, "memfd_create")
    assert text(batch, row, PATH1) == "payload"
    assert batch.field(row, CWD) is None
    row = int((batch.header["kind"] == KIND_EXEC).nonzero()[0][-1])
    info = batch.structs(PROCESS, PROCESS_STRUCT)[row]
    assert batch.field(row, EXE) == b"memfd:payload\0"
    assert (info["exe_pseudo"], info["exe_links"]) == (1, 0)


def test_only_enabled_calls_of_others_are_reported(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("unlink")
    (tmp_path / "own").touch()
    os.unlink(tmp_path / "own")
    pid = run("import os; open('x', 'w'); os.unlink('x')", tmp_path)
    batch = watcher.drain()
    assert batch is not None
    assert os.getpid() not in batch.header["pid"]
    calls = batch.header[batch.header["kind"] == KIND_CALL]
    assert set(calls["nr"].tolist()) == {NR["unlink"]}
    assert pid in calls["pid"]


def test_unreadable_arguments_leave_a_mark_instead_of_a_field(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("unlink")
    script = "import ctypes; ctypes.CDLL(None).syscall(87, ctypes.c_void_p(8))"
    batch = watcher.of(run(script, tmp_path))
    (row,) = rows(batch, "unlink")
    assert (batch.header["result"][row], batch.field(row, PATH1)) == (-14, None)
    assert batch.header["faults"][row] == 1 << PATH1


def test_what_does_not_fit_into_the_ring_is_counted_by_call(tmp_path: Path, watcher: Watcher) -> None:
    try:
        small = program.load(ring_pages=1)
    except program.ProbeError as error:
        pytest.skip(f"no probe on this host: {error}")
    try:
        small.enable(["getppid"])
        run("import os\nfor _ in range(500): os.getppid()", tmp_path)
        counters = small.counters()
        sent, lost = (int(c[:, NR["getppid"]].sum()) for c in (counters.sent, counters.lost))
        assert sent + lost >= 500
        assert 0 < sent < 40
    finally:
        small.close()


def programs_loaded() -> set[int]:
    """Ids of the BPF programs in the kernel, by walking them with the bpf call."""
    libc = ctypes.CDLL(None, use_errno=True)
    found: set[int] = set()
    attribute = np.zeros(32, np.uint32)
    while True:
        if libc.syscall(NR["bpf"], 11, attribute.ctypes.data_as(ctypes.c_void_p), 128) != 0:
            return found
        attribute[0] = attribute[1]
        found.add(int(attribute[1]))


def programs_of(pid: int) -> set[int]:
    """Ids of the programs whose attachments a process holds."""
    found = set()
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        found.update(
            int(number) for number in re.findall(r"^prog_id:\s*(\d+)$", path.read_text(), re.MULTILINE)
        )
    return found


def test_a_killed_agent_leaves_no_program_behind(watcher: Watcher) -> None:
    script = "from agent.probe import program; p = program.load(); print('up', flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    own = programs_of(process.pid)
    assert len(own) == len(program.TRACEPOINTS)
    assert own <= programs_loaded()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 10
    while programs_loaded() & own and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not programs_loaded() & own


def test_faults_of_the_host_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(program.ProbeError, match=r"^this kernel has no struct task_struct$"):
        program.load(BTF.parse(small_kernel()))
    monkeypatch.setattr(program.platform, "machine", lambda: "m68k")
    with pytest.raises(program.ProbeError, match=r"^no system call table for m68k, only for x86_64$"):
        program.load()
    monkeypatch.undo()

    def nothing(release: str) -> None:
        raise HeadersError("no kernel headers: nowhere")

    monkeypatch.setattr(program.headers, "find", nothing)
    with pytest.raises(program.ProbeError, match=r"^no kernel headers: nowhere$"):
        program.load()
    monkeypatch.setattr(program.os, "geteuid", lambda: 1000)
    with pytest.raises(program.ProbeError, match=r"^the probe needs root$"):
        program.load()


def test_an_unknown_call_cannot_be_enabled(watcher: Watcher) -> None:
    with pytest.raises(program.ProbeError, match="no such system call: reed"):
        watcher.probe.enable(["read", "reed"])


def test_an_execution_by_another_thread_is_that_of_the_process(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("execve")
    script = """
import os, threading
t = threading.Thread(target=os.execve, args=("/bin/true", ["true", "yes"], {})); t.start(); t.join()"""
    process = subprocess.Popen([sys.executable, "-S", "-c", script], cwd=tmp_path)
    assert process.wait(30) == 0
    batch = watcher.of(process.pid)
    row = int((batch.header["kind"] == KIND_EXEC).nonzero()[0][-1])
    assert (text(batch, row, PATH1), text(batch, row, ARGS)) == ("/bin/true", "true\0yes\0")
    assert (batch.header["tid"][row], batch.header["comm"][row]) == (process.pid, b"true")
    ends = (batch.header["kind"] == KIND_EXIT).nonzero()[0]
    assert len(ends) == 1, "threads that end are not the end of the process"
