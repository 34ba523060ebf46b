"""TCP sockets from the kernel, in our network namespace and in another one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent import sockdiag
from agent.processgroups import Group, GroupNames
from agent.processscan import ProcessScan, ScannedProcess
from agent.sockdiag import ESTABLISHED, LISTEN
from agent.socketowners import SocketOwners


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_connection_has_its_ends_bytes_and_inode(family: int, host: str) -> None:
    with socket.create_server((host, 0), family=family) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((host, port)) as client, listener.accept()[0] as server:
            client.sendall(b"x" * 1234)
            server.recv(1234, socket.MSG_WAITALL)
            with sockdiag.open_diag() as diag:
                found = sockdiag.tcp_sockets(diag)
            inode = int(os.readlink(f"/proc/self/fd/{server.fileno()}")[8:-1])
            client_port = client.getsockname()[1]
    received = next(entry for entry in found if entry.inode == inode)
    assert (received.state, received.local_port, received.remote_port) == (ESTABLISHED, port, client_port)
    assert received.received_bytes == 1234
    assert socket.inet_ntop(family, received.remote) == host
    assert [entry.state for entry in found if entry.local_port == port].count(LISTEN) == 1
    assert len({entry.cookie for entry in found}) == len(found)


SERVER = """
import socket, subprocess
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
s = socket.create_server(("127.0.0.1", 0))
c = socket.create_connection(s.getsockname())
print(s.getsockname()[1], flush=True)
input()
"""


@pytest.mark.root
def test_sockets_of_another_namespace_are_listed_and_the_namespace_is_left_alone(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("entering a network namespace needs root")
    command = ["unshare", "--net", sys.executable, "-c", SERVER]
    own = os.readlink("/proc/self/ns/net")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        scan = ProcessScan(GroupNames())
        scan.processes = [ScannedProcess(process.pid, 0, "x", Group("x", "c" * 64), ())]
        owners = SocketOwners(scan)
        listed = owners.sockets(0.0)
        assert owners.errors == {}
        inside = [entry for entry in listed if entry.namespace]
        assert sorted(entry.tcp.state for entry in inside) == [ESTABLISHED, ESTABLISHED, LISTEN]
        assert {entry.group for entry in inside if entry.tcp.state == LISTEN} == {Group("x", "c" * 64)}
        assert any(entry.tcp.local_port == port for entry in inside)
        assert os.readlink("/proc/thread-self/ns/net") == own
        process.communicate(b"\n")
    scan.processes = []
    assert [entry for entry in owners.sockets(100.0) if entry.namespace] == []
    owners.close()


def test_a_namespace_that_is_gone_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        sockdiag.open_diag("/proc/self/ns/none")
