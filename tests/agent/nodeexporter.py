"""Debian's node exporter, started for a comparison, and its page as label sets with values."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator

from ingest.kernels.exposition import TEXT
from ingest.scrape.text import parse_labels, scan_body
from tsdb.labels import Labels

PROGRAM = "prometheus-node-exporter"
START_SECONDS = 15.0


def installed() -> bool:
    """Whether Debian's package is there."""
    return shutil.which(PROGRAM) is not None


@contextlib.contextmanager
def running(port: int, *arguments: str) -> Iterator[str]:
    """The address of its page while it runs."""
    command = [PROGRAM, f"--web.listen-address=127.0.0.1:{port}", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).read()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def scrape(url: str) -> dict[Labels, float]:
    """Label sets and values of a page."""
    body = urllib.request.urlopen(url, timeout=10).read()
    scanned = scan_body(body, TEXT)
    return {
        Labels.from_pairs(parse_labels(scanned.series_text(index), TEXT)): float(scanned.values[index])
        for index in range(scanned.count)
    }


def types(url: str) -> dict[str, str]:
    """Types of the families of a page."""
    text = urllib.request.urlopen(url, timeout=10).read().decode()
    lines = (line.split() for line in text.splitlines() if line.startswith("# TYPE "))
    return {fields[2]: "unknown" if fields[3] == "untyped" else fields[3] for fields in lines}
