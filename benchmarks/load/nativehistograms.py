"""Native histograms of request latencies, one series a host, as remote-write bodies."""

from __future__ import annotations

from collections.abc import Iterator

import cramjam
import numpy as np

from benchmarks.load import encode

BUCKETS = 24
SCHEMA = 2


def bodies(hosts: int, steps: int, step_ms: int, end_ms: int, seed: int) -> Iterator[bytes]:
    """A request a scrape; all buckets only grow."""
    random = np.random.default_rng(seed)
    counts = np.zeros((hosts, BUCKETS), dtype=np.int64)
    shape = 40 * np.exp(-(((np.arange(BUCKETS) - BUCKETS / 2) / 5) ** 2))
    labels = [
        [
            (b"__name__", b"request_latency_seconds"),
            (b"instance", f"host-{host:05d}.example.internal:9100".encode()),
            (b"job", b"native"),
        ]
        for host in range(hosts)
    ]
    first_ms = end_ms - steps * step_ms
    for step in range(steps):
        counts += random.poisson(shape, counts.shape)
        rows = []
        for host in range(hosts):
            deltas = np.diff(counts[host], prepend=0).tolist()
            total = float(counts[host] @ np.exp2(np.arange(BUCKETS) / 4))
            each = encode.histogram(first_ms + step * step_ms + host, deltas, SCHEMA, total=total)
            rows.append(encode.Series(labels[host], histograms=[each]))
        yield bytes(cramjam.snappy.compress_raw(encode.write_request_v1(rows)))
