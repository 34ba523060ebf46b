"""Selecting and decoding samples of one block in this process: million samples a second of one core."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from benchmarks.figures import OURS, Figure
from benchmarks.load.bodies import StepValues
from benchmarks.load.nodes import SeriesSet
from tsdb.block import Block
from tsdb.fs import FileSystem
from tsdb.labels import Labels
from tsdb.sampleblocks import GatheredSamples, write_sample_blocks
from tsdb.symbols import SymbolTable

STEP_MS = 15_000
STEPS = 480
"""Two hours."""
BLOCK_RANGE_MS = 2 * 3600 * 1000
FIRST_MS = 1_800_000_000_000 // BLOCK_RANGE_MS * BLOCK_RANGE_MS
BATCH_SAMPLES = 1 << 20
RUNS = 5
LIMIT = 100.0


def write(folder: Path, series: SeriesSet, values: StepValues, steps: int = STEPS) -> Path:
    """A block of `steps` scrapes of the series; its directory."""
    width = len(series)
    table = np.array([values.step().copy() for _ in range(steps)])
    samples = GatheredSamples.of_floats(
        np.repeat(np.arange(width, dtype=np.int64), steps),
        np.tile(FIRST_MS + STEP_MS * np.arange(steps, dtype=np.int64), width),
        np.ascontiguousarray(table.T).reshape(-1).view(np.uint64),
    )
    labels = [Labels.from_dict(dict(pairs)) for pairs in series.labels]
    (meta,) = write_sample_blocks(FileSystem(), folder, labels, samples, BLOCK_RANGE_MS)
    return folder / meta.ulid


def _read_all(block: Block) -> tuple[float, float, int]:
    """CPU seconds of the select, of reading everything, and the samples read."""
    began = time.thread_time()
    selection = block.select((), block.meta.min_time, block.meta.max_time)
    selected = time.thread_time()
    ends = np.cumsum(selection.sample_bounds())
    lo, count = 0, 0
    while lo < len(ends):
        before = int(ends[lo - 1]) if lo else 0
        hi = max(lo + 1, int(np.searchsorted(ends, before + BATCH_SAMPLES, side="right")))
        count += len(selection.read(lo, hi).values)
        lo = hi
    return selected - began, time.thread_time() - selected, count


def measure(path: Path) -> list[Figure]:
    """The best of several runs on a block just opened, and of several with its pages in the cache."""
    fresh, warm, count = [], [], 0
    for _ in range(RUNS):
        block = Block.open(FileSystem(), path, SymbolTable())
        select_s, read_s, count = _read_all(block)
        fresh.append((select_s + read_s, select_s))
        warm.append(sum(_read_all(block)[:2]))
        block.close()
    whole_s, select_s = min(fresh)
    return [
        Figure("samples, million", {OURS: count / 1e6}),
        Figure(
            "select and decode, block just opened, million samples/s",
            {OURS: count / whole_s / 1e6},
            limit=LIMIT,
            more_is_better=True,
        ),
        Figure("of that the select, ms", {OURS: select_s * 1e3}),
        Figure("again, pages in the cache, million samples/s", {OURS: count / min(warm) / 1e6}),
    ]
