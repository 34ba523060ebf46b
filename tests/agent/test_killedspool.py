"""Spool and channel of an agent killed with signal 9 at random moments: what was written is never lost."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ingest.diskqueue import DiskQueue

TURNS = 6

_AGENT = """
import asyncio, os, signal, sys, threading, time
from pathlib import Path
from prometheus_client import CollectorRegistry
from agent.channel.client import ChannelClient, ChannelMetrics
from agent.channel.protocol import Report
from agent.channel.spool import EventSpool
from agent.channel.stagedfiles import StagedFiles
from ingest.config.httpclient import HTTPClientConfig
from ingest.diskqueue import DiskQueue
from ingest.httpclient import HTTPClient
from security.output import EventOutput
from security.record import EventRecord

folder, url = Path(sys.argv[1]), sys.argv[2]

def record(number):
    output = EventOutput("Shell", "syscall", 5, (), 10**18 + number, f"event {number}", {"proc.pid": number})
    return EventRecord(output, (("rule", "Shell"),), "web-1")

async def act(first, told):
    registry, queue = CollectorRegistry(), DiskQueue(folder, 1 << 24)
    async def apply(files): pass
    report = lambda: Report(agent="a-1", epoch=queue.epoch, hostname="h", version="1", started_ms=0)
    files = StagedFiles(folder.parent / "pushed", apply)
    http = HTTPClient(HTTPClientConfig(), "test")
    await ChannelClient("a-1", url, http, queue, files, report, ChannelMetrics(registry)).start()
    spool = EventSpool(queue, lambda count: None)
    def write():
        for number in range(first, first + 100_000):
            spool.write([record(number)]).result()
            os.write(told, f"{number}\\n".encode())
    threading.Thread(target=write, daemon=True).start()
    await asyncio.Event().wait()

# Each line that is read is the first number of a child; the next line kills it.
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        asyncio.run(act(int(line), sys.stdout.fileno()))
    sys.stdin.readline()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.write(sys.stdout.fileno(), b"killed\\n")
"""


class Taking(BaseHTTPRequestHandler):
    """Takes requests with events, remembers them before it answers, and is slow at times."""

    taken: set[bytes]
    lock = threading.Lock()
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        sequence = self.headers.get("X-Vedette-Sequence", "0")
        if self.path.endswith("/events"):
            with self.lock:
                self.taken.update(body.split(b"\n"))
            if int(sequence) % 7 == 0:
                time.sleep(0.02)
        answer = f'{{"acknowledged": {sequence}, "refused": 0}}'.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, set[bytes]]]:
    taken: set[bytes] = set()
    handler = type("Handler", (Taking,), {"taken": taken})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        listening.daemon_threads = True
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_address[1]}", taken
        listening.shutdown()


def queued(folder: Path) -> set[bytes]:
    """Lines that wait in a queue nobody uses now."""
    queue, found, sequence = DiskQueue(folder, 1 << 24), set[bytes](), 0
    while (item := queue.next(sequence)) is not None:
        sequence = item.sequence
        found.update(item.payload.split(b"\n"))
    queue.close()
    return found


def numbers(lines: set[bytes]) -> set[int]:
    return {int(line.partition(b'"event ')[2].partition(b'"')[0]) for line in lines}


def test_what_was_written_is_on_disk_or_at_the_server(tmp_path: Path, server: tuple[str, set[bytes]]) -> None:
    url, taken = server
    folder = tmp_path / "events"
    with subprocess.Popen(
        [sys.executable, "-c", _AGENT, str(folder), url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            written: set[int] = set()
            for seed in range(TURNS):
                process.stdin.write(f"{seed * 100_000}\n".encode())
                process.stdin.flush()
                # From the first event on, so that a slow machine kills as much as a fast one.
                written.add(int(process.stdout.readline()))
                time.sleep(random.Random(seed).uniform(0.0, 0.25))
                deadline = time.monotonic() + 30
                while seed == TURNS - 1 and not taken and time.monotonic() < deadline:
                    time.sleep(0.01)
                process.stdin.write(b"kill\n")
                process.stdin.flush()
                while (line := process.stdout.readline()) != b"killed\n":
                    assert line, "the writer ended"
                    # The last line may be cut where the process was killed: then it was not told.
                    written.add(int(line))
                waiting = numbers(queued(folder))
                # A request of the killed agent may still be on its way into the set.
                with Taking.lock:
                    arrived = numbers(taken)
                lost = written - waiting - arrived
                assert not lost, f"seed {seed}: {sorted(lost)[:10]}"
            assert len(written) >= TURNS
            assert taken, "the server got some"
        finally:
            process.kill()
