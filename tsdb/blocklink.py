"""Merging blocks that follow one another in time without touching their samples.

The new block has the `columns` files of the old ones as hard links, and series, index and directory of
timestamp vectors of its own. Nothing is decoded and no page is written again.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tsdb.block import Block
from tsdb.blockmeta import BlockMeta, BlockStats
from tsdb.blockseries import NewRuns, block_order, write_rows
from tsdb.blockwriter import build_block
from tsdb.columnpack import pack_columns
from tsdb.columnsfile import FLOATS, HISTOGRAMS, columns_names
from tsdb.fs import FileSystem
from tsdb.serieslabels import SeriesLabels

LINKED_FILES_LIMIT = 4
"""Files of columns of a block. A series has a run in each, so that the merge after the next writes pages
anew: a reader of one series would otherwise open a page for every two hours."""


def can_link(blocks: Sequence[Block]) -> bool:
    """Whether blocks, ascending by time, can become one by links: samples that do not overlap, few files."""
    metas = [block.meta for block in blocks]
    apart = all(before.max_time <= after.min_time for before, after in itertools.pairwise(metas))
    files = sum(meta.column_files for meta in metas)
    return len(metas) > 1 and apart and files <= LINKED_FILES_LIMIT


def link_blocks(fs: FileSystem, parent_dir: Path, meta: BlockMeta, blocks: Sequence[Block]) -> BlockMeta:
    """Make a block below `parent_dir` that has all samples of `blocks` (see `can_link`).

    `meta` says what is known before. Raises DiskFullError, OSError, CorruptionError; nothing is left then.
    """
    files = sum(block.meta.column_files for block in blocks)
    meta = replace(meta, column_files=files)
    return build_block(fs, parent_dir, meta, lambda directory: _write_files(fs, directory, blocks))


def _write_files(fs: FileSystem, directory: Path, blocks: Sequence[Block]) -> BlockStats:
    """Everything but meta.json."""
    sources = [block.path / name for block in blocks for name in columns_names(block.meta.column_files)]
    for source, name in zip(sources, columns_names(len(sources)), strict=True):
        fs.link(source, directory / name)
    parts = [block.select((), block.meta.min_time, block.meta.max_time) for block in blocks]
    joined = SeriesLabels.concat([part.labels for part in parts], blocks[0].symbols)
    ids, first = joined.group_first_rows()
    labels = joined.take(first)
    order = block_order(labels)
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    rows = places[ids]
    runs, row, vectors = list[NewRuns](), 0, 0
    streams = np.zeros(max(FLOATS, HISTOGRAMS) + 1, dtype=np.uint32)
    for block, part in zip(blocks, parts, strict=True):
        counts = np.diff(part.runs.offsets)
        old = part.runs
        runs.append(
            NewRuns(
                np.repeat(rows[row : row + len(counts)], counts),
                old.kind,
                old.stream + streams[old.kind],
                old.times + np.uint32(vectors),
                np.where(old.starts == 0, np.uint32(0), old.starts + np.uint32(vectors)),
            )
        )
        row += len(counts)
        vectors += len(block.times.counts)
        for kind in (FLOATS, HISTOGRAMS):
            streams[kind] += np.uint32(block.columns.directory(kind).first[-1])
    times = [block.times for block in blocks]
    directory_of_times = pack_columns(
        [
            np.concatenate([time.counts for time in times]).astype(np.uint32),
            np.concatenate([time.mint for time in times]),
            np.concatenate([time.maxt for time in times]),
        ]
    )
    num_series, num_chunks = write_rows(fs, directory, labels.take(order), runs, directory_of_times)
    stats = [block.meta.stats for block in blocks]
    return BlockStats(
        num_samples=sum(each.num_samples for each in stats),
        num_float_samples=sum(each.num_float_samples for each in stats),
        num_histogram_samples=sum(each.num_histogram_samples for each in stats),
        num_series=num_series,
        num_chunks=num_chunks,
    )
