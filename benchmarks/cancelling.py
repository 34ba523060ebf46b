"""How long a query goes on when its client has gone away."""

from __future__ import annotations

import socket
import time
import urllib.request

from benchmarks.servers import Server

_GAUGE = "prometheus_engine_queries "
_LEAVE_AFTER_S = 0.3
_TIMEOUT_S = 30.0


def _running(server: Server) -> float:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=_TIMEOUT_S) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(_GAUGE)).split()[1])


def measure(server: Server, path: str) -> float:
    """Seconds from closing the connection of a running query to its end, as /metrics shows it (one reading of
    it included). Raises RuntimeError if the query has ended before."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=_TIMEOUT_S)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    time.sleep(_LEAVE_AFTER_S)
    if not _running(server):
        connection.close()
        raise RuntimeError(f"the query took less than {_LEAVE_AFTER_S} s")
    connection.close()
    started = time.perf_counter()
    while _running(server):
        if time.perf_counter() - started > _TIMEOUT_S:
            raise RuntimeError(f"the query goes on after {_TIMEOUT_S} s")
    return time.perf_counter() - started
