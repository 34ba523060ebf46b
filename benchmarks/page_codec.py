"""Bytes per sample and speed of the page codec by kind of data: `python benchmarks/page_codec.py`.

Prints the table of docs/blocks.md. Speeds are CPU time of one thread, best of several runs, for 136 series of
two hours at 15 s (480 samples) and for 12 series of a day, about one page each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from tsdb import page

F64Array = npt.NDArray[np.float64]
RUNS = 15


def kinds(rng: np.random.Generator, series: int, samples: int) -> Iterator[tuple[str, F64Array]]:
    """Name and values [series, samples] of each kind of data of engine.md."""
    shape = (series, samples)
    yield "const", np.repeat(np.round(rng.uniform(0, 100, (series, 1)), 2), samples, 1)
    yield "counter", np.cumsum(rng.poisson(rng.uniform(0.1, 200, (series, 1)), shape), 1).astype(float)
    yield "bytes-gauge", 4096.0 * (500_000 + np.cumsum(np.round(rng.normal(0, 400, shape)), 1))
    yield "gauge.2", np.round(50 + np.cumsum(rng.normal(0, 0.1, shape), 1), 2)
    yield "cpu-seconds", np.round(1e5 + np.cumsum(np.clip(rng.normal(3, 1.5, shape), 0, 15), 1), 2)
    yield "random", rng.random(shape)
    yield "float32", rng.random(shape).astype(np.float32).astype(float)


def best(run: Callable[[], object]) -> float:
    """Smallest CPU time of several runs, seconds."""
    run()
    times = []
    for _ in range(RUNS):
        began = time.thread_time_ns()
        run()
        times.append(time.thread_time_ns() - began)
    return min(times) / 1e9


def measure(name: str, values: F64Array) -> str:
    """One row of the table."""
    series, samples = values.shape
    offsets = np.arange(0, values.size + 1, samples, dtype=np.int64)
    bits = np.ascontiguousarray(values).reshape(-1).view(np.uint64)
    streams, lengths = np.arange(series), np.diff(offsets)
    out = np.empty(len(bits), dtype=np.uint64)
    stored = page.encode_floats(offsets, bits)
    raw = page.decompress(stored, name)

    def kernel() -> None:
        page.decode_into(raw, streams, offsets[:-1], lengths, out, True, name)

    def whole() -> None:
        page.decode_into(page.decompress(stored, name), streams, offsets[:-1], lengths, out, True, name)

    seconds = [best(lambda: page.encode_floats(offsets, bits)), best(whole), best(kernel)]
    assert (out == bits).all()
    speeds = " | ".join(f"{len(bits) / s / 1e6:4.0f}" for s in seconds)
    return f"| {name:11} | {len(stored) / len(bits):5.3f} | {speeds} |"


def main() -> None:
    """Print the tables."""
    for series, samples in ((136, 480), (12, 5760)):
        print(f"\n{series} series x {samples} samples")
        print("| kind | B/sample | encode M/s | decode M/s | kernel alone M/s |\n|---|---|---|---|---|")
        for name, values in kinds(np.random.default_rng(5), series, samples):
            print(measure(name, values))


if __name__ == "__main__":
    main()
