"""Native histograms of request latencies, one series a host, as remote-write bodies."""

from __future__ import annotations

from collections.abc import Iterator

import cramjam
import numpy as np

from benchmarks.load import encode

BUCKETS = 24
SCHEMA = 2


class NativeHistograms:
    """Histograms of a number of hosts, one scrape after the other; all buckets only grow."""

    def __init__(self, hosts: int, step_ms: int, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._step_ms = step_ms
        self._counts = np.zeros((hosts, BUCKETS), dtype=np.int64)
        self._labels = [
            [
                (b"__name__", b"request_latency_seconds"),
                (b"instance", f"host-{host:05d}.example.internal:9100".encode()),
                (b"job", b"native"),
            ]
            for host in range(hosts)
        ]

    def bodies(self, first_ms: int, steps: int) -> Iterator[bytes]:
        """A request for each of the next `steps` scrapes, the first at `first_ms`."""
        shape = 40 * np.exp(-(((np.arange(BUCKETS) - BUCKETS / 2) / 5) ** 2))
        bounds = np.exp2(np.arange(BUCKETS) / 4)
        for step in range(steps):
            self._counts += self._random.poisson(shape, self._counts.shape)
            rows = []
            for host, labels in enumerate(self._labels):
                deltas = np.diff(self._counts[host], prepend=0).tolist()
                t_ms, total = first_ms + step * self._step_ms + host, float(self._counts[host] @ bounds)
                each = encode.histogram(t_ms, deltas, SCHEMA, total=total)
                rows.append(encode.Series(labels, histograms=[each]))
            yield bytes(cramjam.snappy.compress_raw(encode.write_request_v1(rows)))
