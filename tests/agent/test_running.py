"""Fields that no event tells, of real processes as the real probe sees them."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.events import Events
from agent.fields.source import SyscallSource
from agent.observer import boot_clock_ns
from agent.processes import ProcessTable
from agent.processnow import OLDEST_NS, SECOND_NS, OpenFile, ProcessNow, ThreadTimes, ThreadUse
from tests.agent.conftest import Watcher

_ACTS = """
import os, sys, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
os.close(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_EXCL))
os.close(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT))
os.close(os.open(sys.argv[1], os.O_RDONLY))
try: os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_EXCL)
except FileExistsError: pass
print("ready", flush=True)
sys.stdin.readline()
"""


def start_ns(pid: int) -> int:
    """Start of a process as records have it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) * 10_000_000


class Acting:
    """A process that did what `_ACTS` does and waits; columns of its events."""

    def __init__(self, watcher: Watcher, folder: Path) -> None:
        watcher.watch("openat", "execve")
        self.path = str(folder / "made")
        self.error = folder / "error"
        with self.error.open("wb") as error:
            self.child = subprocess.Popen(
                [sys.executable, "-S", "-c", _ACTS, self.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=error,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)),
            )
        assert self.child.stdout is not None
        assert self.child.stdout.readline() == b"ready\n"
        batch = watcher.of(self.child.pid)
        self.events = Events(batch, os.uname().machine, time.time_ns() - boot_clock_ns())
        self.table = ProcessTable()
        self.table.seed()
        self.table.apply(self.events)
        self.source = SyscallSource("host")
        self.opens = [
            row
            for row in range(len(self.events))
            if self.events.type(row) == "openat" and self.events.path(row, 1) == self.path
        ]
        self.execution = next(row for row in range(len(self.events)) if self.events.type(row) == "execve")

    def column(self, name: str) -> Any:
        """The column of a batch of its own, so that nothing is kept."""
        found = self.source.batch(self.events, self.table).column((name, None))
        assert found is not None, name
        return found

    def value(self, name: str) -> Any:
        """The field of the first open."""
        return self.column(name).value(self.opens[0])


@pytest.fixture
def acting(watcher: Watcher, tmp_path: Path) -> Iterator[Acting]:
    made = Acting(watcher, tmp_path)
    yield made
    made.child.kill()
    made.child.communicate()


@pytest.mark.root
def test_memory_threads_and_descriptors_of_a_running_process(acting: Acting) -> None:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{acting.child.pid}/status").read_text().splitlines()
    )
    for name, key in (("vmsize", "VmSize"), ("vmrss", "VmRSS"), ("vmswap", "VmSwap")):
        assert acting.value(f"proc.{name}") == int(status[key].split()[0]), name
    assert acting.value("thread.vmsize") == acting.value("proc.vmsize")
    assert (acting.value("proc.nthreads"), acting.value("proc.nchilds")) == (2, 1)
    assert (acting.value("proc.fdopencount"), acting.value("proc.fdlimit")) == (3, 200)
    assert acting.value("proc.fdusage") == 1.5
    assert acting.value("proc.stdin.type") == acting.value("proc.stdout.type") == "pipe"
    assert acting.value("proc.stdin.name") == os.readlink(f"/proc/{acting.child.pid}/fd/0")
    assert (acting.value("proc.stderr.type"), acting.value("proc.stderr.name")) == ("file", str(acting.error))
    assert acting.value("thread.pfminor") > 100
    assert acting.value("thread.cpu") is None, "the first look at a thread has nothing to compare with"


@pytest.mark.root
def test_an_execution_has_the_numbers_of_its_moment_also_after_the_end(acting: Acting) -> None:
    now = acting.value("proc.vmsize")
    acting.child.kill()
    acting.child.wait()
    for name in ("vmsize", "vmrss", "fdopencount", "nthreads", "stdin.type", "fdusage", "fdlimit"):
        assert acting.value(f"proc.{name}") is None, name
    assert 0 < acting.column("proc.vmsize").value(acting.execution) < now
    assert acting.column("proc.fdlimit").value(acting.execution) == 200
    rendered = acting.column("evt.args").value(acting.execution)
    assert f"vm_rss={acting.column('proc.vmrss').value(acting.execution)} " in rendered
    assert f"pgft_min={acting.column('thread.pfminor').value(acting.execution)} " in rendered


@pytest.mark.root
def test_an_open_says_that_it_made_its_file(acting: Acting) -> None:
    column = acting.column("evt.is_open_create")
    assert [column.value(row) for row in acting.opens] == [True, False, False, False]
    assert column.value(acting.execution) is False


def test_what_a_descriptor_leads_to(tmp_path: Path) -> None:
    own = ProcessNow(os.getpid(), start_ns(os.getpid()))
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        socket.socket(socket.AF_UNIX) as local,
        socket.create_server(("::", 0), family=socket.AF_INET6) as six,
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as netlink,
    ):
        local.bind(str(tmp_path / "s"))
        netlink.bind((0, 0))  # the kernel lists bound ones only
        port, other = server.getsockname()[1], client.getsockname()[1]
        folder, memory, event = os.open("/", os.O_RDONLY), os.memfd_create("m"), os.eventfd(0)
        opened = {
            server.fileno(): OpenFile("ipv4", f"127.0.0.1:{port}"),
            client.fileno(): OpenFile("ipv4", f"127.0.0.1:{other}->127.0.0.1:{port}"),
            local.fileno(): OpenFile("unix", str(tmp_path / "s")),
            six.fileno(): OpenFile("ipv6", f":::{six.getsockname()[1]}"),
            netlink.fileno(): OpenFile("netlink", ""),
            folder: OpenFile("directory", "/"),
            memory: OpenFile("memfd", "memfd:m"),
            event: OpenFile("event", "[eventfd]"),
        }
        client_end = opened.pop(client.fileno())
        assert {number: own.open_file(number) for number in opened} == opened
        # Which end of two high ports is the server is a guess.
        found = own.open_file(client.fileno())
        assert found is not None
        assert sorted(found.name.split("->")) == sorted(client_end.name.split("->"))
        for number in (folder, memory, event):
            os.close(number)
    assert own.open_file(event) is None


def test_another_process_of_the_same_pid_is_not_taken_for_it() -> None:
    other = ProcessNow(os.getpid(), start_ns(os.getpid()) + 10_000_000)
    assert (other.memory_kib("VmRSS"), other.threads, other.open_count) == (None, None, None)
    assert (other.descriptors_limit, other.open_file(0), other.thread(os.getpid())) == (None, None, None)


def test_processor_use_is_between_two_looks_and_forgotten_beyond_the_limit() -> None:
    use = ThreadUse(limit=2)

    def look(key: str, at_ns: int, user_ns: int) -> tuple[float, float] | None:
        return use.of(key, at_ns, ThreadTimes(user_ns, 0, 0, 0))

    assert look("a", 0, 0) is None
    assert look("a", SECOND_NS // 2, 100) is None
    assert look("a", SECOND_NS, SECOND_NS // 4) == (25.0, 0.0)
    assert look("a", SECOND_NS * 3 // 2, SECOND_NS * 3 // 4) == (50.0, 0.0)
    assert look("a", 2 * SECOND_NS + OLDEST_NS, SECOND_NS) is None, "the look before is too old"
    assert look("b", 0, 0) is look("c", 0, 0) is None
    assert look("a", 3 * SECOND_NS + OLDEST_NS, SECOND_NS) is None, "the oldest gave way"
