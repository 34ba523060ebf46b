"""Resident bytes a series of the head beyond label strings: the difference that a million series make.

`python -m benchmarks.head_memory [--series 1000000] [--samples 60] [--unique 1]`. Series are like a node
exporter's of many targets: nine labels and `--unique` more whose value no other series has. 60 samples are
half an open chunk, the average.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.figures import OURS, Figure
from tsdb.head import Head
from tsdb.labels import Labels
from tsdb.symbols import SymbolTable

T0 = 1_700_006_400_000
BATCH = 2_000
SAMPLES = 60
UNIQUE = 1
LIMIT = 500.0
"""Bytes a series beyond label strings and the bytes of closed chunks."""


def resident() -> int:
    """Bytes of this process in memory, after giving back what the allocator holds."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS in /proc/self/status")


def label_sets(first: int, count: int, unique: int) -> list[Labels]:
    """Distinct label sets: 500 metrics, 2,000 instances for a million series."""
    rows = []
    for i in range(first, first + count):
        metric, instance = i % 500, i // 500
        pairs = {
            "__name__": f"node_metric_number_{metric}_total",
            "instance": f"host-{instance:05d}.example.org:9100",
            "job": "node",
            "cluster": f"cluster-{instance % 7}",
            "env": "production",
            "region": f"region-{instance % 3}",
            "device": f"sda{metric % 11}",
            "mode": f"mode-{metric % 8}",
            "team": f"team-{instance % 23}",
        }
        for k in range(unique):
            pairs[f"path{k}"] = f"/var/lib/containers/{k}/{i:08d}"
        rows.append(Labels.from_dict(pairs))
    return rows


def measure(series: int, samples: int, unique: int) -> dict[str, float]:
    """Fill a head; what each part costs in bytes a series. Of a process of its own: freed memory would be
    used again and not be seen."""
    symbols = SymbolTable()
    head = Head(symbols, (3, 5), late_window_ms=3_600_000)
    run(head, label_sets(10**9, 100, unique), 1, T0)
    before = resident()
    refs = []
    for first in range(0, series, BATCH):
        rows = label_sets(first, min(BATCH, series - first), unique)
        refs.append(run(head, rows, 0, T0))
    del rows
    created = resident()
    strings = sum(len(symbols.text(i).encode()) for i in range(len(symbols)))
    head.postings.select([])
    indexed = resident()
    for n in range(samples):
        for part in refs:
            store(head, part, T0 + 15_000 * n, n)
    filled = resident()
    closed = head.chunk_storage_bytes()
    return {
        "label strings": strings / series,
        "labels, tables, postings": (created - before - strings) / series,
        "postings waiting to be sorted in": (indexed - created) / series,
        f"{samples} samples": (filled - indexed) / series,
        "of these closed chunks, which the store moves to files": closed / series,
        "all beyond label strings and closed chunks": (filled - before - strings - closed) / series,
    }


def figures(series: int) -> list[Figure]:
    """The same as figures, measured in a process of its own, with the bar of all."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        parts = pool.submit(measure, series, SAMPLES, UNIQUE).result()
    *some, (name, whole) = parts.items()
    found = [Figure(f"{part}, B a series", {OURS: value}, form=",.0f") for part, value in some]
    return [*found, Figure(f"{name}, B a series", {OURS: whole}, limit=LIMIT, form=",.0f")]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--unique", type=int, default=UNIQUE, help="labels whose value only one series has")
    given = parser.parse_args()
    for name, value in measure(given.series, given.samples, given.unique).items():
        print(f"{name}: {value:.0f} B a series")


def run(head: Head, rows: list[Labels], samples: int, t_ms: int) -> np.ndarray:
    """Create series, perhaps with samples."""
    with head.lock:
        refs, _ = head.find_or_create(rows)
    for n in range(samples):
        store(head, refs, t_ms + n, n)
    return refs


def store(head: Head, refs: np.ndarray, t_ms: int, n: int) -> None:
    """One sample for each series."""
    times = np.full(len(refs), t_ms, dtype=np.int64)
    bits = (np.arange(len(refs)) * 17.0 + n).view(np.uint64)
    with head.lock:
        codes, _ = head.admit(refs, times, bits, head.rules(t_ms, t_ms))
        head.store(refs, times, bits, codes)


if __name__ == "__main__":
    main()
