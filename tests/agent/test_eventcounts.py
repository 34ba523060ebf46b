"""Counts from the event stream, with real programs under a real probe."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.connectionedges import ConnectionEdges
from agent.eventcounts import CALLS, EventCounts, distinct
from agent.observer import Observer
from agent.peers import PeerNames
from agent.probe import program
from agent.processgroups import GroupNames, GroupRule
from agent.processscan import ProcessScan
from agent.runtimes.lookup import ContainerLookup
from agent.socketowners import SocketOwners
from ingest.gathered import Gathered

Series = dict[tuple[str, ...], float]


class Watched:
    """A probe with both consumers."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        rule = GroupRule("vedette-test-client", comm=frozenset({"vtest-client"}))
        self.names = GroupNames([rule])
        self.reset()

    def reset(self) -> None:
        self.drain()
        self.counts = EventCounts(self.names)
        self.scan = ProcessScan(self.names)
        peers = PeerNames(ContainerLookup([]), time.monotonic)
        self.edges = ConnectionEdges(self.names, peers, SocketOwners(self.scan))

    def drain(self, seconds: float = 0.05) -> None:
        """Consume all that happens until `seconds` after now."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            events = self.observer.step()
            if events is not None and hasattr(self, "counts"):
                self.counts.consume(events, self.observer.table)
                self.edges.consume(events, self.observer.table)
            time.sleep(0.005)

    def series(self, name: str, group: str) -> Series:
        """Values of a metric of one group by its further labels."""
        gathered = Gathered()
        self.counts.collect(gathered)
        return {
            values[6:]: value
            for (metric, _, values), value in gathered.values.items()
            if metric == f"vedette_process_{name}_total" and values[0] == group
        }


@pytest.fixture(scope="module")
def observer() -> Iterator[Observer]:
    if os.geteuid() != 0:
        pytest.skip("the probe needs root")
    try:
        found = Observer(program.load())
    except program.ProbeError as error:
        pytest.skip(f"no probe on this host: {error}")
    found.start([*CALLS, "sendto", "recvfrom"])
    yield found
    found.close()


@pytest.fixture
def watched(observer: Observer) -> Watched:
    return Watched(observer)


@pytest.fixture
def shell(tmp_path: Path) -> Callable[[str], int]:
    """Runs commands with a shell that has a name of its own, so that nothing else counts with it."""
    own = tmp_path / "vtest-shell"
    shutil.copy(shutil.which("dash") or "/bin/sh", own)
    return lambda text: subprocess.run([own, "-c", text], stderr=subprocess.DEVNULL).returncode


def test_executions_forks_exits_and_opens_count_for_who_did_them(
    watched: Watched, shell: Callable[[str], int], tmp_path: Path
) -> None:
    assert shell(f": > {tmp_path}/a; : > {tmp_path}/b; (exit 0); (exit 0); (kill -9 $$)") == -9
    assert shell("(exit 0); : < /nonexistent/vedette; exit 3") == 2
    watched.drain(0.2)
    group = "vtest-shell"
    assert watched.series("executions", group) == {(): 2}
    assert watched.series("forks", group) == {(): 4}
    assert watched.series("exits", group) == {("success",): 4, ("failure",): 1, ("signal",): 1}
    assert watched.series("opens", group)[()] >= 2
    assert watched.series("errors", group)[("open", "not_found")] >= 1
    assert 0 < watched.series("lifetime_seconds", group)[()] < 60


CLIENT = """
import ctypes, socket, sys
ctypes.CDLL(None).prctl(15, b"vtest-client", 0, 0, 0)
port = int(sys.argv[1])
for _ in range(3):
    socket.create_connection(("127.0.0.1", port)).close()
for _ in range(2):
    s = socket.socket(); s.connect_ex(("127.0.0.1", int(sys.argv[2]))); s.close()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(("127.0.0.1", port)); u.close()
s = socket.create_connection(("127.0.0.1", port)); s.sendall(b"x" * 5000); s.recv(7000, socket.MSG_WAITALL)
print("ready", flush=True)
sys.stdin.read()
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_connections_are_edges_with_counts_failures_and_bytes(watched: Watched) -> None:
    refused = free_port()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [sys.executable, "-c", CLIENT, str(port), str(refused)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            for _ in range(4):
                accepted, _ = listener.accept()
            accepted.recv(5000, socket.MSG_WAITALL)
            accepted.sendall(b"y" * 7000)
            assert client.stdout is not None
            assert client.stdout.readline() == b"ready\n"
            watched.drain(0.2)
            watched.scan.run()
            gathered = Gathered()
            watched.edges.collect(gathered)
            accepted.close()
            client.communicate(b"")
    assert watched.edges.errors == {}
    server = watched.edges._peers.listeners[port]
    assert server.startswith(("python", "pytest", "py.test")), server
    edges: dict[tuple[str, str], dict[str, float]] = {}
    for (metric, _, labels), value in gathered.values.items():
        if labels[:1] == ("vedette-test-client",):
            edges.setdefault((labels[2], labels[3]), {})[metric.removeprefix("vedette_connection_")] = value
    tcp = edges[str(port), "tcp"]
    assert (tcp["opened_total"], tcp["open"]) == (4, 1)
    assert tcp["received_bytes_total"] == 7000
    assert tcp["sent_bytes_total"] in (5000, 5001), "the kernel counts the first segment too"
    assert 0 < tcp["round_trip_seconds"] < 1
    assert edges[str(refused), "tcp"] == {"failed_total": 2}
    assert edges[str(port), "udp"] == {"opened_total": 1}
    counts = watched.series("connections", "vedette-test-client")
    assert counts == {("out", "tcp"): 4, ("out", "udp"): 1}
    assert watched.series("errors", "vedette-test-client")[("connect", "network")] == 2


@pytest.mark.parametrize("size", [0, 1, 3, 1000])
def test_distinct_rows_are_those_of_a_dictionary(size: int) -> None:
    random = np.random.default_rng(5)
    columns = [random.integers(0, 6, size).astype(kind) for kind in ("u4", "u8", "u2", "?")]
    first, inverse = distinct(*columns)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    assert len(first) == len(set(rows))
    assert [rows[first[number]] for number in inverse] == rows
    assert all(rows.index(rows[at]) == at for at in first.tolist())
