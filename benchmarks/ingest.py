"""Send a load to a server over several connections and measure what it accepts."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.bodies import Load, LoadWriter
from benchmarks.servers import Server, Usage

WRITE_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
    "User-Agent": "vedette-benchmark",
}
_TIMEOUT_S = 120.0
PART_SAMPLES = 15_000_000
"""Of a file, for the disk's sake."""
PART_STEPS = 120
"""Lanes wait for each other after half an hour at 15 s: servers refuse what is too far behind."""


@dataclass(frozen=True, slots=True)
class IngestResult:
    """Outcome of one load. CPU and written bytes are counted until the server was idle again."""

    sample_count: int
    seconds: float
    cpu_s: float
    written_bytes: int
    rss_bytes: int
    peak_rss_bytes: int
    disk_bytes: dict[str, int]


class Lane(threading.Thread):
    """One connection that sends its requests one after the other."""

    def __init__(self, server: Server, load: Load, lane: int) -> None:
        super().__init__(name=f"lane-{lane}", daemon=True)
        self._server = server
        self._load = load
        self._lane = lane
        self.error: Exception | None = None

    def run(self) -> None:
        """Stop at the first answer that is not 2xx."""
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=_TIMEOUT_S)
        try:
            for body in self._load.bodies(self._lane):
                connection.request("POST", "/api/v1/write", body, WRITE_HEADERS)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status // 100 != 2:
                    raise RuntimeError(f"{self._server.kind.name} answered {answer.status}: {text[:300]!r}")
        except Exception as error:
            self.error = error
        finally:
            connection.close()


def send(server: Server, load: Load, lane_count: int) -> float:
    """Send everything; seconds until the last answer. Raises what a lane raised."""
    lanes = [Lane(server, load, lane) for lane in range(lane_count)]
    started = time.monotonic()
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    seconds = time.monotonic() - started
    for lane in lanes:
        if lane.error is not None:
            raise lane.error
    return seconds


def send_in_parts(
    servers: Sequence[Server], writer: LoadWriter, first_ms: int, steps: int, path: Path
) -> int:
    """Send `steps` scrapes to every server, a part of them at a time through one file; samples sent to each.

    A server rests while another takes its part.
    """
    sample_count = 0
    part_steps = max(1, min(PART_STEPS, PART_SAMPLES // writer.series_count))
    part_steps = -(-part_steps // writer.steps_together) * writer.steps_together
    for step in range(0, steps, part_steps):
        part = writer.write(path, first_ms + step * writer.step_ms, min(part_steps, steps - step))
        for server in servers:
            send(server, part, writer.lane_count)
        sample_count += part.sample_count
    path.unlink()
    return sample_count


def measure(server: Server, load: Load, lane_count: int, settle_s: float, rest_s: float) -> IngestResult:
    """Send a load, let the server rest for `rest_s` or until it is idle; take the difference in usage."""
    before: Usage = server.usage()
    seconds = send(server, load, lane_count)
    server.flush()
    time.sleep(rest_s)
    after = server.settle(quiet_s=2.0, timeout_s=settle_s)
    return IngestResult(
        sample_count=load.sample_count,
        seconds=seconds,
        cpu_s=after.cpu_s - before.cpu_s,
        written_bytes=after.written_bytes - before.written_bytes,
        rss_bytes=after.rss_bytes,
        peak_rss_bytes=after.peak_rss_bytes,
        disk_bytes=server.disk_bytes(),
    )
