"""Servers under measurement: started on a fresh folder, watched through /proc, stopped.

CPU, memory and bytes written are those of the process and its children.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
SNAPSHOT_TIMEOUT_S = 300.0
_POLL_S = 0.02
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Kind:
    """A server program. `command` gets the port and the folder."""

    name: str
    command: Callable[[int, Path], list[str]]
    ready_path: str
    query_arguments: tuple[tuple[str, str], ...] = ()
    flush_path: str = ""
    """Asked after a load by servers that keep fresh samples in memory only, so that disk sizes compare."""
    merge_path: str = ""
    """Asked to merge everything now, by servers that do not do it by themselves in a benchmark's time."""
    snapshot_path: str = ""
    """Makes a copy of the store in which the head is a block."""


def _vedette(port: int, folder: Path) -> list[str]:
    config = folder / "vedette.yml"
    config.write_text("global:\n  scrape_interval: 1h\n", encoding="utf-8")
    program = Path(sys.executable).parent / "vedette"
    return [
        *(str(program), "serve", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--web.enable-admin-api"),
        *("--no-agent", "--log.level=warn"),
    ]


def _prometheus(port: int, folder: Path) -> list[str]:
    config = folder / "prometheus.yml"
    config.write_text("global:\n  scrape_interval: 1h\n", encoding="utf-8")
    return [
        *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--web.enable-remote-write-receiver"),
        *("--web.enable-admin-api", "--storage.tsdb.retention.time=30d", "--log.level=warn"),
        *("--enable-feature=native-histograms", "--query.max-samples=500000000"),
    ]


def _victoria_metrics(port: int, folder: Path) -> list[str]:
    return [
        *("victoria-metrics", f"-storageDataPath={folder / 'data'}", f"-httpListenAddr=127.0.0.1:{port}"),
        *("-retentionPeriod=1", "-search.latencyOffset=0s", "-loggerLevel=ERROR"),
        *("-search.maxUniqueTimeseries=1000000", "-search.maxSeries=1000000"),
    ]


_SNAPSHOT = "/api/v1/admin/tsdb/snapshot"
VEDETTE = Kind("vedette", _vedette, "/-/ready", snapshot_path=_SNAPSHOT)
PROMETHEUS = Kind("prometheus", _prometheus, "/-/ready", snapshot_path=_SNAPSHOT)
VICTORIA_METRICS = Kind(
    "victoria-metrics",
    _victoria_metrics,
    "/health",
    (("nocache", "1"),),
    flush_path="/internal/force_flush",
    merge_path="/internal/force_merge",
)
KINDS = (VEDETTE, PROMETHEUS, VICTORIA_METRICS)


def missing_programs(kinds: tuple[Kind, ...] = KINDS) -> list[str]:
    """Names of the servers that are not installed."""
    return [kind.name for kind in kinds if kind is not VEDETTE and shutil.which(kind.name) is None]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far."""

    cpu_s: float
    written_bytes: int
    rss_bytes: int
    peak_rss_bytes: int
    private_bytes: int
    """Of `rss_bytes` what is no page of a file."""


class Server:
    """One running server."""

    def __init__(self, kind: Kind, port: int, folder: Path) -> None:
        """Start it. Raises RuntimeError where something listens on the port already."""
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                raise RuntimeError(f"port {port} is taken, by another benchmark perhaps")
        folder.mkdir(parents=True, exist_ok=True)
        self.kind = kind
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.data = folder / "data"
        self._log = (folder / "log").open("ab")
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            kind.command(port, folder), stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._log_path = folder / "log"

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> float:
        """Seconds from start to ready. Raises RuntimeError with the log's end when it does not become so."""
        deadline = self._started + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            if self._answers():
                return time.monotonic() - self._started
            time.sleep(_POLL_S)
        code = self._process.poll()
        self.kill()
        state = f"exited with {code}" if code is not None else f"is not ready after {timeout_s} s"
        raise RuntimeError(f"{self.kind.name} {state}; end of its log:\n{self.log_tail()}")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + self.kind.ready_path, timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def flush(self) -> None:
        """Let the server write what it holds in memory only, where it has a path for that."""
        if self.kind.flush_path:
            urllib.request.urlopen(self.url + self.kind.flush_path, timeout=60).close()

    def merge(self) -> None:
        """Let the server begin to merge what it has on disk, where it has a path for that."""
        if self.kind.merge_path:
            urllib.request.urlopen(self.url + self.kind.merge_path, timeout=60).close()

    def snapshot_bytes(self) -> int:
        """Allocated bytes of a new snapshot, for servers that have a `snapshot_path`."""
        request = urllib.request.Request(self.url + self.kind.snapshot_path, method="POST")
        with urllib.request.urlopen(request, timeout=SNAPSHOT_TIMEOUT_S) as answer:
            name = json.load(answer)["data"]["name"]
        files = [path.stat() for path in (self.data / "snapshots" / name).rglob("*") if path.is_file()]
        return sum(each.st_blocks * 512 for each in files)

    def metric(self, name: str) -> float:
        """Value of one of the server's own metrics that has no labels. Raises KeyError."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=60) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[1])
        raise KeyError(name)

    def query(self, text: str, time_s: float) -> list[dict[str, Any]]:
        """The rows of an instant query."""
        arguments = [("query", text), ("time", f"{time_s:.3f}"), *self.kind.query_arguments]
        url = f"{self.url}/api/v1/query?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            rows: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return rows

    def log_tail(self, length: int = 3000) -> str:
        """End of what the server wrote."""
        return self._log_path.read_text(encoding="utf-8", errors="replace")[-length:]

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def _pids(self) -> list[int]:
        found, pending = [], [self.pid]
        while pending:
            pid = pending.pop()
            found.append(pid)
            with contextlib.suppress(OSError):
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    pending += map(int, (thread / "children").read_text().split())
        return found

    def usage(self) -> Usage:
        """CPU, written bytes and memory until now."""
        cpu, written, rss, peak, private = 0.0, 0, 0, 0, 0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                cpu += (int(stat[11]) + int(stat[12])) / _TICKS_PER_S
                for line in Path(f"/proc/{pid}/io").read_text().splitlines():
                    if line.startswith("write_bytes"):
                        written += int(line.split()[1])
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmRSS"):
                        rss += int(line.split()[1]) * 1024
                    elif line.startswith("VmHWM"):
                        peak += int(line.split()[1]) * 1024
                    elif line.startswith("RssAnon"):
                        private += int(line.split()[1]) * 1024
        return Usage(cpu, written, rss, peak, private)

    def reset_peak(self) -> None:
        """Let the peak of memory begin anew at what the process has resident now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def settle(self, quiet_s: float, timeout_s: float) -> Usage:
        """Wait until the server has used next to no CPU for `quiet_s`; then its usage."""
        deadline = time.monotonic() + timeout_s
        last = self.usage()
        while time.monotonic() < deadline:
            time.sleep(quiet_s)
            now = self.usage()
            if now.cpu_s - last.cpu_s < 0.05 * quiet_s:
                return now
            last = now
        return last

    def disk_bytes(self) -> dict[str, int]:
        """Allocated bytes of the data folder, by its first level; what goes away meanwhile is not counted."""
        sizes: dict[str, int] = {}
        for folder, _, files in os.walk(self.data):
            for name in files:
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    top = path.relative_to(self.data).parts[0]
                    sizes[top] = sizes.get(top, 0) + path.stat().st_blocks * 512
        return sizes

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that takes too long."""
        if self.is_running():
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._log.close()

    def kill(self) -> None:
        """SIGKILL at once."""
        if self.is_running():
            self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def running(kind: Kind, port: int, folder: Path) -> Iterator[Server]:
    """A server that is ready, and stopped at the end."""
    server = Server(kind, port, folder)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def running_all(kinds: Sequence[Kind], port: int, folder: Path) -> Iterator[list[Server]]:
    """One server of each kind at `port` and following, each in a folder of its name."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(running(kind, port + number, folder / kind.name))
            for number, kind in enumerate(kinds)
        ]
