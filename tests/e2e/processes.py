"""Real servers as processes on free ports, and a small HTTP client for them."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import shutil
import socket
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cramjam
import pytest

from benchmarks.load.encode import Series, write_request_v1
from benchmarks.servers import Kind, Server

TIMEOUT_S = 60.0
_FIRST_PORT, _EPHEMERAL_PORT = 10_000, 32_768
NOTHING_TO_SCRAPE = "global:\n  scrape_interval: 1h\n"
WRITE_HEADERS = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lasting_port() -> int:
    """A port that nothing listens on now and that the kernel gives to no outgoing connection, so that
    it is free still when a test binds it minutes later."""
    for port in random.sample(range(_FIRST_PORT, _EPHEMERAL_PORT), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")


def need_programs(*names: str) -> None:
    """Skip the test where a program is not installed."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


class Api:
    """One kept-alive connection. One thread only."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of an answer."""
        self._connection.request(method, path, body or None, dict(headers or {}))
        answer = self._connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()

    def get(self, path: str, **parameters: Any) -> tuple[int, Any]:
        """Status and JSON of an API path."""
        query = urllib.parse.urlencode(parameters)
        status, _, body = self.request("GET", f"{path}?{query}")
        return status, json.loads(body)

    def query(self, text: str, time_s: float | None = None) -> Any:
        """`data` of an instant query."""
        moment = {} if time_s is None else {"time": f"{time_s:.3f}"}
        status, answer = self.get("/api/v1/query", query=text, **moment)
        assert status == 200, answer
        return answer["data"]

    def query_range(self, text: str, start_s: float, end_s: float, step_s: float) -> Any:
        """`data` of a range query."""
        window = {"start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "step": f"{step_s:.3f}"}
        status, answer = self.get("/api/v1/query_range", query=text, **window)
        assert status == 200, answer
        return answer["data"]

    def write(self, rows: Iterable[Series]) -> tuple[int, str]:
        """Send rows by remote write 1.0."""
        return self.write_raw(bytes(cramjam.snappy.compress_raw(write_request_v1(rows))))

    def write_raw(self, body: bytes, headers: Mapping[str, str] = WRITE_HEADERS) -> tuple[int, str]:
        """Send a body as it is."""
        status, _, text = self.request("POST", "/api/v1/write", body, headers)
        return status, text.decode()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def vedette_kind(*flags: str, config: str = NOTHING_TO_SCRAPE) -> Kind:
    """`vedette serve` of this environment with more flags and a configuration."""

    def command(port: int, folder: Path) -> list[str]:
        path = folder / "vedette.yml"
        path.write_text(config, encoding="utf-8")
        program = Path(sys.executable).parent / "vedette"
        return [
            *(str(program), "serve", f"--config.file={path}", f"--storage.tsdb.path={folder / 'data'}"),
            *(f"--web.listen-address=127.0.0.1:{port}", "--no-agent", *flags),
        ]

    return Kind("vedette", command, "/-/ready")


def start_vedette(folder: Path, *flags: str, config: str = NOTHING_TO_SCRAPE) -> Server:
    """Start on a free port; the caller waits for readiness and stops it."""
    return Server(vedette_kind(*flags, config=config), free_port(), folder)


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll a condition; fail with `what` when it does not come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s} s: {what}")
        time.sleep(0.1)


def series(name: str, samples: Sequence[tuple[int, float]], **labels: str) -> Series:
    """A row of a request."""
    pairs = sorted({"__name__": name, **labels}.items())
    return Series([(key.encode(), value.encode()) for key, value in pairs], samples)
