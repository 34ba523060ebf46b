"""Columns of system calls: against a slow twin on a recording of this host, and case by case."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from agent.events import Events
from agent.fields.source import SyscallSource, loaders
from agent.observer import boot_clock_ns
from agent.probe import program
from agent.probe.layout import KIND_FORK
from agent.probe.ringbuffer import Batch, RingReader, TimeOrder, concatenate
from agent.processes import STATE_CALLS, ProcessTable
from security.fields.table import field_table
from tests.reference import syscallfields as slow

_LOAD = """
import os, socket, subprocess, sys
folder = sys.argv[1]
os.chdir(folder)
server = socket.create_server(("127.0.0.1", 0)); port = server.getsockname()[1]
six = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
for place in range(6):
    client = socket.create_connection(("127.0.0.1", port)); other, _ = server.accept()
    other.send(b"x"); client.recv(9); client.close(); other.close()
    mapped = socket.create_connection(("127.0.0.1", six.getsockname()[1])); mapped.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", 9)); sender.connect(("127.0.0.1", 9)); sender.send(b"y")
    for name in ("missing", "/missing/x", "."):
        try: os.close(os.open(name, os.O_RDONLY))
        except OSError: pass
    with open(f"f{place}", "w"): pass
    os.chmod(f"f{place}", 0o4755); os.symlink("/etc", f"l{place}"); os.link(f"f{place}", f"h{place}")
    os.rename(f"f{place}", "\\xff\\n"); os.unlink("\\xff\\n"); os.mkdir(f"d{place}"); os.rmdir(f"d{place}")
    directory = os.open("/etc", os.O_DIRECTORY); os.close(os.open("hostname", os.O_RDONLY, dir_fd=directory))
    os.close(os.dup(directory)); os.close(directory); os.close(os.memfd_create("m")); os.close(os.eventfd(0))
    subprocess.run(["/bin/sh", "-c", "cat /etc/hostname; exec ls ."], stdout=subprocess.DEVNULL)
    script = "cd /tmp; (sleep 0.001; cat /etc/hostname) & (cd /; id -u) ; :"
    subprocess.run(["/bin/sh", "-c", script], stdout=subprocess.DEVNULL)
"""
Recorded = tuple[Batch, ProcessTable]
CALLS = (
    *("open", "openat", "openat2", "creat", "connect", "accept", "accept4", "listen", "socket", "bind"),
    *("sendto", "recvfrom", "sendmsg", "recvmsg", "execve", "execveat", "dup", "dup2", "dup3", "unlink"),
    *("unlinkat", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "rmdir", "chmod", "fchmod"),
    *("fchmodat", "fchmodat2", "symlink", "symlinkat", "link", "linkat", "memfd_create", "clone", "vfork"),
)


def _drain(ring: RingReader) -> list[Batch]:
    parts = []
    while (batch := ring.read()) is not None:
        parts.append(batch)
    return parts


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Records of a load and of all processes that it starts, and the processes before them."""
    if os.geteuid() != 0:
        pytest.skip("the probe needs root")
    try:
        probe = program.load()
    except program.ProbeError as error:
        pytest.skip(f"no probe on this host: {error}")
    ring = RingReader(probe.ring_descriptor, probe.ring_bytes)
    probe.enable({*CALLS, *STATE_CALLS})
    table = ProcessTable()
    table.seed()
    folder = tmp_path_factory.mktemp("load")
    load = subprocess.Popen([sys.executable, "-S", "-c", _LOAD, str(folder)])
    assert load.wait(60) == 0
    parts = _drain(ring)
    ring.close()
    probe.close()
    ordered = TimeOrder(0).push(concatenate(parts), 1 << 62)
    assert ordered is not None
    pids = {load.pid}
    for record in ordered.header[ordered.header["kind"] == KIND_FORK]:
        if int(record["args"][1]) in pids:
            pids.add(int(record["pid"]))
    own = np.flatnonzero(np.isin(ordered.header["pid"], sorted(pids)))
    return ordered.select(own), table


def pieces(batch: Batch, size: int) -> list[Events]:
    offset = time.time_ns() - boot_clock_ns()
    return [
        Events(batch.select(np.arange(start, min(start + size, len(batch)))), os.uname().machine, offset)
        for start in range(0, len(batch), size)
    ]


@pytest.mark.root
@pytest.mark.parametrize("size", [3000, 37])
def test_columns_are_those_of_a_slow_twin(recording: Recorded, size: int) -> None:
    batch, table = recording
    batch = batch.select(np.arange(len(batch) if size > 1000 else 700))
    expected = list(slow.rows(pieces(batch, 1000), copy.deepcopy(table)))
    source, fast_table = SyscallSource("host"), copy.deepcopy(table)
    different: list[str] = []
    at = 0
    for events in pieces(batch, size):
        fast_table.apply(events)
        made = source.batch(events, fast_table)
        # Half of the columns for all events, half for the events of one type, as rules ask for them.
        types = made.types
        assert types is not None
        wanted = [np.flatnonzero(types.codes == code) for code in range(len(types.dictionary))]
        parts = [(rows, made.take(rows)) for rows in wanted if len(rows)]
        for number, key in enumerate(slow.FIELDS):
            places = [(np.arange(len(events)), made)] if number % 2 else parts
            for rows, part in places:
                column = part.column(key)
                for place, row in enumerate(rows.tolist()):
                    if types.codes[row] < 0:
                        continue
                    value = None if column is None else column.value(place)
                    if value != expected[at + row][key]:
                        different.append(f"{at + row} {key}: {value!r}, expected {expected[at + row][key]!r}")
        at += len(events)
    kinds = sorted({line.split(" ", 1)[1].split(":")[0] for line in different})
    assert not different, f"{len(different)} of {kinds} differ:\n" + "\n".join(different[:20])
    seen = {row["evt.type", None] for row in expected}
    assert {"openat", "execve", "connect", "sendto", "rename", "memfd_create"} <= seen


def test_every_loader_is_a_field_of_the_catalogue() -> None:
    assert not loaders().keys() - field_table("syscall").fields.keys()


@pytest.mark.root
def test_an_open_that_made_its_file_is_known_from_one_that_did_not(recording: Recorded) -> None:
    batch, table = recording
    own = copy.deepcopy(table)
    made, others = set(), set()
    source = SyscallSource("host")
    for events in pieces(batch, 3000):
        own.apply(events)
        columns = source.batch(events, own)
        created, names, args = (
            columns.column((name, None)) for name in ("evt.is_open_create", "fd.nameraw", "evt.args")
        )
        assert created is not None
        assert names is not None
        assert args is not None
        for row in range(len(events)):
            name = names.value(row)
            if name is not None:
                (made if created.value(row) else others).add(name)
                assert ("O_F_CREATED" in args.value(row)) == bool(created.value(row))
    assert {name for name in made if name[0] == "f"} == {f"f{place}" for place in range(6)}
    assert {"hostname", "missing", "/missing/x", "/dev/null"} <= others
    assert not made & others


def _values(column: Any, count: int) -> list[Any]:
    return [column.value(row) for row in range(count)]


@pytest.mark.root
def test_every_field_can_be_asked_of_every_event(recording: Recorded) -> None:
    """No field fails on any type of event, and what it gives is as long as the batch."""
    batch, table = recording
    events = pieces(batch.select(np.arange(min(len(batch), 800))), 800)[0]
    own = copy.deepcopy(table)
    own.apply(events)
    made = SyscallSource("host").batch(events, own)
    for name, info in field_table("syscall").fields.items():
        argument = None
        if info.argument_required or name in ("proc.aname", "proc.args"):
            argument = "1" if "i" in info.flags else "name"
        column = made.column((name, argument))
        if column is not None:
            assert len(_values(column, len(events))) == len(events), name
