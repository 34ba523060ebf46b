"""A load of executions, opens and connections, and its record from the live probe."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.events import Events
from agent.observer import boot_clock_ns
from agent.probe import program
from agent.probe.layout import KIND_FORK
from agent.probe.ringbuffer import Batch, RingReader, TimeOrder, concatenate
from agent.processes import STATE_CALLS, ProcessTable

RING_PAGES = 16_384
"""64 MiB: the recorder shares its processor with the load and must lose nothing."""

LOAD = r"""
import os, socket, subprocess, sys, threading, time
deadline = time.monotonic() + float(sys.argv[1])
server = socket.create_server(("127.0.0.1", 0), backlog=128)
port = server.getsockname()[1]
def accept():
    while True:
        connection, _ = server.accept()
        connection.close()
threading.Thread(target=accept, daemon=True).start()
folders = ["/etc", "/usr/lib/python3", "/usr/share", "/usr/bin", "/proc/self"]
secret = ("shadow", "sudoers", "pam")
names = [os.path.join(folder, name) for folder in folders for name in sorted(os.listdir(folder))[:400]]
names = [name for name in names if not any(word in name for word in secret)]
folder = sys.argv[2]
commands = "/bin/true; /bin/cat /etc/hostname; /bin/ls " + folder + "; id -u; uname -r; /bin/true --version"
round = 0
while time.monotonic() < deadline:
    round += 1
    for place in range(60):
        name = names[(round * 37 + place * 11) % len(names)]
        try:
            os.close(os.open(name, os.O_RDONLY))
        except OSError:
            pass
    for place in range(10):
        with socket.socket() as client:
            client.connect(("127.0.0.1", port))
    for place in range(3):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("127.0.0.1", 9))
    for place in range(3):
        path = f"{folder}/{place}"
        with open(path, "w"):
            pass
        os.rename(path, path + ".new")
        os.chmod(path + ".new", 0o600)
        os.unlink(path + ".new")
    subprocess.run(["/bin/sh", "-c", commands], stdout=subprocess.DEVNULL)
"""


QUIET_LOAD = r"""
import os, sys, time
deadline = time.monotonic() + float(sys.argv[1])
file = os.open("/etc/hostname", os.O_RDONLY)
while time.monotonic() < deadline:
    for _ in range(100):
        os.lseek(file, 0, 0)
        os.read(file, 1)
        os.fstat(file)
"""
"""Calls that no rule names, over and over."""


@dataclass(frozen=True)
class Recording:
    """Records in order of time, and the processes there were before them."""

    batch: Batch
    table: ProcessTable
    boot_unix_ns: int
    lost: int

    def batches(self, size: int) -> list[Events]:
        """The records in pieces of `size`."""
        places = np.arange(len(self.batch))
        pieces = [places[start : start + size] for start in range(0, len(places), size)]
        return [Events(self.batch.select(piece), os.uname().machine, self.boot_unix_ns) for piece in pieces]

    def fresh_table(self) -> ProcessTable:
        """The processes as they were before the first record."""
        return copy.deepcopy(self.table)

    def mix(self) -> dict[str, float]:
        """Share of each type of event, largest first; records of new processes are none."""
        events = Events(self.batch, os.uname().machine, self.boot_unix_ns)
        codes, first, counts = np.unique(events.codes, return_index=True, return_counts=True)
        of_rules = (self.batch.header["kind"] != KIND_FORK).sum()
        shares = {
            events.type(row): count / of_rules
            for row, count in zip(first.tolist(), counts.tolist(), strict=True)
            if self.batch.header["kind"][row] != KIND_FORK and codes is not None
        }
        return dict(sorted(shares.items(), key=lambda item: -item[1]))


def record(calls: Iterable[str], seconds: float, script: str = LOAD, programs: int = 2) -> Recording:
    """Run a load, in Python, for some seconds and keep every record of the host. Needs root."""
    probe = program.load(ring_pages=RING_PAGES)
    try:
        ring = RingReader(probe.ring_descriptor, probe.ring_bytes)
        probe.enable({*calls, *STATE_CALLS})
        table = ProcessTable()
        table.seed()
        with tempfile.TemporaryDirectory() as folder:
            parts = _drain(ring, seconds, _start(folder, seconds, script, programs))
        lost = int(probe.counters().lost.sum())
        ring.close()
    finally:
        probe.close()
    ordered = TimeOrder(0).push(concatenate(parts), 1 << 62)
    assert ordered is not None
    return Recording(ordered, table, time.time_ns() - boot_clock_ns(), lost)


def _start(folder: str, seconds: float, script: str, programs: int) -> Sequence[subprocess.Popen[bytes]]:
    started = []
    for place in range(programs):
        inside = Path(folder, str(place))
        inside.mkdir()
        command = [sys.executable, "-c", script, str(seconds), str(inside)]
        started.append(subprocess.Popen(command))
    return started


def _drain(ring: RingReader, seconds: float, started: Sequence[subprocess.Popen[bytes]]) -> list[Batch]:
    parts = []
    deadline = time.monotonic() + seconds + 10.0
    while any(process.poll() is None for process in started) and time.monotonic() < deadline:
        batch = ring.read()
        if batch is not None:
            parts.append(batch)
        time.sleep(0.02)
    while (batch := ring.read()) is not None:
        parts.append(batch)
    for process in started:
        process.kill()
        process.wait()
    return parts
