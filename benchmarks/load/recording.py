"""A real node exporter recorded: Debian's, scraped on this machine, played back as a small fleet.

A recording is a file of scrapes. Window k of it (`steps` scrapes, none shared with another window) becomes
host k, so that no two hosts have the same values; times are those of the load, a step of 15 s. What it is
not: the values move as much as they do in the recording's own interval, and all hosts are one machine.
"""

from __future__ import annotations

import contextlib
import struct
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zstandard

from benchmarks.load.nodes import LabelPairs, SeriesSet, host_name
from ingest.kernels.exposition import TEXT
from ingest.scrape.text import parse_labels, scan_body

F64Array = npt.NDArray[np.float64]

EXPORTER = "prometheus-node-exporter"
_LENGTH = struct.Struct("<I")
_START_S = 10.0
_BODY_BYTES_LIMIT = 1 << 24


@contextlib.contextmanager
def _exporter(port: int) -> Iterator[str]:
    process = subprocess.Popen(
        [EXPORTER, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


def record(path: Path, scrapes: int, interval_s: float, port: int) -> None:
    """Scrape an exporter of our own and write what it says. Raises OSError where it does not start."""
    with _exporter(port) as url:
        write_scrapes(path, _scraped(url, scrapes, interval_s))


def write_scrapes(path: Path, bodies: Iterable[bytes]) -> None:
    """Write scrapes as they come: length u32 little-endian, zstd frame."""
    compressor = zstandard.ZstdCompressor()
    with path.open("wb") as file:
        for body in bodies:
            stored = compressor.compress(body)
            file.write(_LENGTH.pack(len(stored)) + stored)


def _scraped(url: str, scrapes: int, interval_s: float) -> Iterator[bytes]:
    due = time.monotonic()
    for _ in range(scrapes):
        with urllib.request.urlopen(url, timeout=30) as answer:
            yield answer.read()
        due += interval_s
        time.sleep(max(0.0, due - time.monotonic()))


def _scrapes(path: Path) -> Iterator[tuple[list[bytes], F64Array]]:
    """Series texts and values of each scrape; a torn last one is left out."""
    decompressor = zstandard.ZstdDecompressor()
    with path.open("rb") as file:
        while len(length := file.read(_LENGTH.size)) == _LENGTH.size:
            body = file.read(_LENGTH.unpack(length)[0])
            with contextlib.suppress(zstandard.ZstdError):
                scanned = scan_body(decompressor.decompress(body, _BODY_BYTES_LIMIT), TEXT)
                yield [scanned.series_text(k) for k in range(scanned.count)], scanned.values.copy()


@dataclass(frozen=True, slots=True)
class Fleet:
    """Hosts of a recording; `values` f64[steps, S]."""

    series: SeriesSet
    values: F64Array

    def source(self) -> FleetValues:
        """Values from the first scrape on."""
        return FleetValues(self.values)


class FleetValues:
    """`StepValues` of a fleet."""

    def __init__(self, values: F64Array) -> None:
        self._rows = iter(values)

    def step(self) -> F64Array:
        """Values at the next scrape. Raises StopIteration behind the last."""
        return next(self._rows)


def read_fleet(path: Path, steps: int) -> Fleet:
    """As many hosts as the recording has windows of `steps` scrapes.

    A series that some scrape of a window lacks is left out of that host. Raises ValueError for less than one
    window.
    """
    labels: list[LabelPairs] = []
    hosts: list[int] = []
    columns: list[F64Array] = []
    window: list[dict[bytes, float]] = []
    for texts, values in _scrapes(path):
        window.append(dict(zip(texts, values.tolist(), strict=True)))
        if len(window) < steps:
            continue
        host = (hosts[-1] + 1) if hosts else 0
        own = (("instance", host_name(host)), ("job", "node"))
        for text in window[0]:
            if all(text in scrape for scrape in window):
                pairs = dict(parse_labels(text, TEXT))
                labels.append(tuple(sorted({**pairs, **dict(own)}.items())))
                hosts.append(host)
                columns.append(np.array([scrape[text] for scrape in window]))
        window = []
    if not labels:
        raise ValueError(f"{path} has fewer than {steps} scrapes")
    series = SeriesSet(labels, np.array(hosts, dtype=np.int32), {})
    return Fleet(series, np.ascontiguousarray(np.array(columns).T))
