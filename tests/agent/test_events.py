"""Parameters of events: the table, rendering of hostile text, and real actions down to the last parameter."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from agent.events import Events, Renderer
from agent.eventtypes import parameter_table
from agent.probe.layout import ACTIONS, CWD, DIR1, PATH1, PATH2
from agent.probe.ringbuffer import Batch
from security.fields.connections import is_server
from security.fields.flagnames import MODE_BITS, OPEN_BITS, bit_names, error_name, open_flags
from security.fields.parameters import escape
from tests.agent.conftest import Watcher
from tests.agent.test_ring import batch_of, record

_NAMED_BY_RULES = """
execve execveat open openat openat2 creat connect accept accept4 listen sendto sendmsg recvfrom recvmsg
socket dup dup2 dup3 symlink symlinkat link linkat unlink unlinkat rmdir rename renameat renameat2
mkdir mkdirat chmod
fchmod fchmodat setuid setns unshare ptrace bpf init_module finit_module userfaultfd
clone clone3 fork vfork mount umount2 memfd_create prctl setgid setresuid capset chroot kill bind mknod
"""

ESCAPES = [
    ("plain ümlaut", "plain ümlaut"),
    ("a\nb", "a\\x0ab"),
    ("\x1b[2J", "\\x1b[2J"),
    (b"\xff\xfe".decode("utf-8", "surrogateescape"), "\\xff\\xfe"),
    ("x" * 5000, "x" * 4096),
]

OPEN_FLAGS = [
    (os.O_RDONLY, "O_RDONLY"),
    (os.O_WRONLY | os.O_CREAT | os.O_TRUNC, "O_TRUNC|O_CREAT|O_WRONLY"),
    (os.O_RDWR | os.O_CLOEXEC, "O_RDWR|O_CLOEXEC"),
    (os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK, "O_DIRECTORY|O_NONBLOCK|O_RDONLY"),
]

PATHS = [
    ({PATH1: b"/a/../b//c"}, 1, "/b/c"),
    ({PATH1: b"x/./y", CWD: b"work\0home\0"}, 1, "/home/work/x/y"),
    ({PATH1: b"../y", CWD: b""}, 1, "/y"),
    ({PATH2: b"y", DIR1 + 1: b"d\0", CWD: b"home\0"}, 2, "/d/y"),
    ({PATH1: b"y"}, 1, "y"),
    ({}, 1, None),
]


def events_of(batch: Batch) -> Events:
    offset = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return Events(batch, "x86_64", offset, lambda uid, row: pwd.getpwuid(uid).pw_name if uid == 0 else "")


@pytest.mark.parametrize("call", _NAMED_BY_RULES.split())
def test_every_event_of_the_rules_is_captured_and_described(call: str) -> None:
    assert call in ACTIONS
    assert call in parameter_table()


def test_every_kind_of_the_table_is_a_method_of_the_renderer() -> None:
    kinds = {spec.kind for specs in parameter_table().values() for spec in specs}
    assert not {kind for kind in kinds if not callable(getattr(Renderer, kind, None))}


@pytest.mark.parametrize(("text", "expected"), ESCAPES)
def test_hostile_text_is_escaped_and_bounded(text: str, expected: str) -> None:
    assert escape(text) == expected


@pytest.mark.parametrize(("kernel", "expected"), OPEN_FLAGS)
def test_open_flags_have_one_name_a_bit(kernel: int, expected: str) -> None:
    assert bit_names(open_flags(kernel), OPEN_BITS) == expected


def test_modes_and_errors_have_names() -> None:
    assert bit_names(0o4100, MODE_BITS) == "S_IXUSR|S_ISUID"
    assert (error_name(-13), error_name(3)) == ("EACCES", "")


@pytest.mark.parametrize(("fields", "which", "expected"), PATHS)
def test_paths_are_joined_with_their_directory(
    fields: dict[int, bytes], which: int, expected: str | None
) -> None:
    events = events_of(batch_of([record(1, fields)]))
    assert events.path(0, which) == expected


def test_a_record_without_any_field_renders_every_type() -> None:
    batch = batch_of([record(1, {})])
    for number in range(512):
        batch.header["nr"] = number
        events = events_of(batch)
        assert isinstance(events.arguments(0), str)


def test_random_fields_never_break_rendering() -> None:
    randomness = np.random.default_rng(11)
    for _ in range(400):
        fields = {
            int(slot): randomness.bytes(int(randomness.choice([0, 1, 3, 16, 40, 56, 184])))
            for slot in randomness.choice(16, 6, replace=False)
        }
        batch = batch_of([record(1, fields)])
        batch.header["nr"] = randomness.integers(0, 330)
        batch.header["result"] = randomness.integers(-200, 200)
        batch.header["args"] = randomness.integers(0, 1 << 63, 6)
        assert "\n" not in events_of(batch).arguments(0)


ACTIONS_AND_ARGUMENTS = [
    ("os.unlink('f')", "unlink", "res=0 path=f({cwd}/f)"),
    ("os.rename('f', '../g'); os.rename('../g', 'f')", "rename", "res=0 oldpath=f({cwd}/f) newpath=../g({parent}/g)"),  # noqa: E501
    ("os.chmod('f', 0o4755)", "chmod", "res=0 filename=f({cwd}/f) mode=04755(S_IXOTH|S_IROTH|S_IXGRP|S_IRGRP|S_IXUSR|S_IWUSR|S_IRUSR|S_ISUID)"),  # noqa: E501
    ("os.chown('/proc/self/none', 0, 5)", "chown", "res=-2(ENOENT) path=/proc/self/none uid=0(root) gid=5"),
    ("os.symlink('/etc/shadow', 'l')", "symlink", "res=0 target=/etc/shadow linkpath=l({cwd}/l)"),
    ("os.mkdir('d', 0o700)", "mkdir", "res=0 path=d({cwd}/d) mode=0700"),
    ("os.setuid(65534)", "setuid", "res=0 uid=65534"),
    ("socket.socket(socket.AF_PACKET, 3, 0)", "socket", "fd=3(<o>) domain=17(AF_PACKET) type=524291 proto=0"),
    ("os.memfd_create('x', 1)", "memfd_create", "fd=3(<M>memfd:x) name=x flags=1(MFD_CLOEXEC)"),
    ("libc.ptrace(16, 1 << 22, 0, 0)", "ptrace", "res=-3(ESRCH) addr=0 data=0 request=16(PTRACE_ATTACH) pid=4194304"),  # noqa: E501
    ("libc.unshare(0x4000000)", "unshare", "res=0 flags=67108864(CLONE_NEWUTS)"),
    ("libc.mount(b'src', b'/none', b'ext4', 1, None)", "mount", "res=-2(ENOENT) dev=src dir=/none flags=1"),
    ("libc.umount2(b'/none', 2)", "umount2", "res=-2(ENOENT) name=/none flags=2"),
    ("os.dup2(0, 50)", "dup2", "res=50 oldfd=0(<f>/dev/null) newfd=50"),
    ("os.kill(1 << 22, 9)", "kill", "res=-3(ESRCH) pid=4194304 sig=9"),
    ("libc.syscall(321, 5, None, 0)", "bpf", "fd=-7(E2BIG) cmd=5(BPF_PROG_LOAD)"),
    ("libc.syscall(175, None, 7, b'x')", "init_module", None),
    ("os.link('f', 'h')", "link", "res=0 oldpath=f({cwd}/f) newpath=h({cwd}/h)"),
    ("os.chroot('/none')", "chroot", "res=-2(ENOENT) path=/none"),
]  # fmt: skip


@pytest.mark.root
@pytest.mark.parametrize(("action", "call", "expected"), ACTIONS_AND_ARGUMENTS)
def test_real_actions_show_all_their_parameters(
    watcher: Watcher, tmp_path: Path, action: str, call: str, expected: str | None
) -> None:
    (tmp_path / "f").touch()
    watcher.watch(call)
    script = f"import os, socket, ctypes; libc = ctypes.CDLL(None)\ntry: {action}\nexcept OSError: pass"
    command = [sys.executable, "-S", "-c", script]
    process = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, env={})
    assert process.wait(30) == 0
    events = events_of(watcher.of(process.pid))
    rows = events.rows_of(call).tolist()
    assert rows, f"no {call} was seen"
    shown = [events.arguments(row) for row in rows]
    if expected is None:
        assert shown[0].startswith("res=-")
        return
    assert expected.format(cwd=tmp_path, parent=tmp_path.parent) in shown
    assert abs(events.time_unix_ns[rows[0]] - time.time_ns()) < 60e9


@pytest.mark.root
def test_an_open_for_writing_shows_flags_mode_and_inode(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("openat")
    process = subprocess.Popen(["/bin/sh", "-c", "echo x > new"], cwd=tmp_path)
    process.wait()
    events = events_of(watcher.of(process.pid))
    (row,) = (row for row in events.rows_of("openat").tolist() if events.path(row, 1) == f"{tmp_path}/new")
    status = (tmp_path / "new").stat()
    assert events.arguments(row) == (
        f"fd=3(<f>{tmp_path}/new) dirfd=-100(AT_FDCWD) name=new({tmp_path}/new) "
        "flags=16646(O_TRUNC|O_CREAT|O_WRONLY|O_F_CREATED) mode=0666 "
        f"dev={status.st_dev:X} ino={status.st_ino}"
    )


@pytest.mark.root
def test_an_execution_shows_its_parameters_in_order(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("execve")
    command = ["/bin/sh", "-c", "exit 0", "one two", ""]
    process = subprocess.Popen(command, cwd=tmp_path, env={"K": "v\x1b"})
    process.wait()
    events = events_of(watcher.of(process.pid))
    row = int(events.rows_of("execve")[-1])
    names = [item.name for item in events.parameters(row)]
    assert names[:8] == ["res", "exe", "args", "tid", "pid", "ptid", "cwd", "fdlimit"]
    assert names[-4:] == ["trusted_exepath", "pgid", "gid", "filename"]
    values = {item.name: item.text for item in events.parameters(row)}
    assert (values["exe"], values["args"]) == ("/bin/sh", "-c exit 0 one two ")
    assert (values["comm"], values["filename"]) == ("sh", "/bin/sh")
    assert (values["cwd"], values["uid"], values["env"]) == (str(tmp_path), "root", "K=v\x1b")
    assert values["trusted_exepath"] == os.path.realpath("/bin/sh")
    assert "K=v\\x1b" in events.arguments(row)
    exit_row = int(events.rows_of("procexit")[0])
    assert events.arguments(exit_row) == "status=0 ret=0 sig=0 core=0"


@pytest.mark.root
def test_a_failed_execution_still_describes_the_caller(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("execve")
    script = "import os\ntry: os.execve('nope', ['nope'], {})\nexcept OSError: pass"
    process = subprocess.Popen([sys.executable, "-S", "-c", script], cwd=tmp_path)
    process.wait()
    events = events_of(watcher.of(process.pid))
    failed = [row for row in events.rows_of("execve").tolist() if events.batch.header["result"][row] < 0]
    assert len(failed) == 1
    found = {item.name: item for item in events.parameters(failed[0])}
    assert (found["res"].raw, found["res"].resolved) == ("-2", "ENOENT")
    assert found["comm"].text.startswith("python")
    assert found["filename"].text == "nope"


SOCKET_SCRIPT = """
import socket, ctypes
u = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); u.bind("path")
a = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); a.bind("\\0abstract-{pid}")
d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); d.bind(("127.0.0.1", 9911))
e = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); e.bind(("127.0.0.1", 40911))
e.sendto(b"hello\\n", ("127.0.0.1", 9911)); d.recvfrom(100)
e.sendmsg([b"more"], [], 0, ("127.0.0.1", 9911)); d.recvmsg(100)
s = socket.socket(socket.AF_INET6); s.bind(("::1", 0)); s.listen(3)
c = socket.socket(socket.AF_INET); c.connect_ex(("127.0.0.1", 1))
how = (ctypes.c_uint64 * 3)(0o101, 0o640, 0)
ctypes.CDLL(None).syscall(437, -100, b"how", how, 24)
"""
SOCKET_ARGUMENTS = [
    ("bind", "res=0 addr=path fd=3(<u>path)"),
    ("bind", "res=0 addr=@abstract-{pid} fd=4(<u>@abstract-{pid})"),
    ("bind", "res=0 addr=127.0.0.1:9911 fd=5(<4>127.0.0.1:9911)"),
    (
        "sendto",
        "res=6 data=hello. fd=6(<4>127.0.0.1:40911->127.0.0.1:9911) size=6 "
        "tuple=127.0.0.1:40911->127.0.0.1:9911",
    ),
    (
        "recvfrom",
        "res=6 data=hello. tuple=127.0.0.1:40911->127.0.0.1:9911 "
        "fd=5(<4>127.0.0.1:40911->127.0.0.1:9911) size=100",
    ),
    (
        "recvmsg",
        "res=4 size=4 data=more tuple=127.0.0.1:40911->127.0.0.1:9911 "
        "fd=5(<4>127.0.0.1:40911->127.0.0.1:9911)",
    ),
]


@pytest.mark.root
def test_sockets_show_addresses_roles_and_data(watcher: Watcher, tmp_path: Path) -> None:
    watcher.watch("bind", "sendto", "recvfrom", "sendmsg", "recvmsg", "listen", "connect", "openat2")
    script = SOCKET_SCRIPT.replace("{pid}", str(os.getpid()))
    process = subprocess.Popen([sys.executable, "-S", "-c", script], cwd=tmp_path)
    assert process.wait(30) == 0
    events = events_of(watcher.of(process.pid))
    shown = {(events.type(row), events.arguments(row)) for row in range(len(events))}
    expected = {(call, text.replace("{pid}", str(os.getpid()))) for call, text in SOCKET_ARGUMENTS}
    assert expected <= shown
    (listen,) = (text for call, text in shown if call == "listen")
    assert listen.startswith("res=0 fd=7(<6>::1:")
    (connect,) = (text for call, text in shown if call == "connect")
    assert connect.startswith("res=-111(ECONNREFUSED) tuple=")
    assert connect.endswith("->127.0.0.1:1) addr=127.0.0.1:1")
    (opened,) = (text for call, text in shown if call == "openat2")
    assert "flags=16390(O_CREAT|O_WRONLY|O_F_CREATED) mode=0640 resolve=0" in opened


ROLES = [
    ("accept4", 40000, 50, True),
    ("connect", 50, 40000, False),
    ("recvfrom", 53, 40000, True),
    ("recvfrom", 40000, 53, False),
    ("recvmsg", 40000, 40001, True),
    ("sendto", 40000, 40001, False),
    ("sendto", 53, 40000, True),
]


@pytest.mark.parametrize(("call", "local", "remote", "server"), ROLES)
def test_the_server_is_known_by_the_call_or_guessed_by_ports(
    call: str, local: int, remote: int, server: bool
) -> None:
    assert is_server(call, local, remote) is server


def test_a_failed_execution_has_nothing_of_the_program() -> None:
    batch = batch_of([record(1, {PATH1: b"/bin/missing"})])
    batch.header["nr"], batch.header["result"] = 59, -2
    events = events_of(batch)
    names = [item.name for item in events.parameters(0)]
    assert names == ["res", "tid", "pid", "ptid", "comm", "uid", "gid", "filename"]
    assert events.parameter(0, "exe") is None
    assert events.arguments(0).startswith("res=-2(ENOENT) tid=")
    assert events.arguments(0).endswith("filename=/bin/missing")
