"""Servers under measurement: started on a fresh folder, watched through /proc, stopped.

CPU, memory and bytes written are those of the process and its children.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
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


def _vedette(port: int, folder: Path) -> list[str]:
    config = folder / "vedette.yml"
    config.write_text("global:\n  scrape_interval: 1h\n", encoding="utf-8")
    program = Path(sys.executable).parent / "vedette"
    return [
        *(str(program), "serve", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--no-agent", "--log.level=warn"),
    ]


def _prometheus(port: int, folder: Path) -> list[str]:
    config = folder / "prometheus.yml"
    config.write_text("global:\n  scrape_interval: 1h\n", encoding="utf-8")
    return [
        *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--web.enable-remote-write-receiver"),
        *("--storage.tsdb.retention.time=30d", "--log.level=warn"),
    ]


def _victoria_metrics(port: int, folder: Path) -> list[str]:
    return [
        *("victoria-metrics", f"-storageDataPath={folder / 'data'}", f"-httpListenAddr=127.0.0.1:{port}"),
        *("-retentionPeriod=1", "-search.latencyOffset=0s", "-loggerLevel=ERROR"),
        *("-search.maxUniqueTimeseries=1000000", "-search.maxSeries=1000000"),
    ]


VEDETTE = Kind("vedette", _vedette, "/-/ready")
PROMETHEUS = Kind("prometheus", _prometheus, "/-/ready")
VICTORIA_METRICS = Kind(
    "victoria-metrics", _victoria_metrics, "/health", (("nocache", "1"),), "/internal/force_flush"
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


class Server:
    """One running server."""

    def __init__(self, kind: Kind, port: int, folder: Path) -> None:
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
        cpu, written, rss, peak = 0.0, 0, 0, 0
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
        return Usage(cpu, written, rss, peak)

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
        """Allocated bytes of the data folder, by its first level."""
        sizes: dict[str, int] = {}
        for path in self.data.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file():
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
