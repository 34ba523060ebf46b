"""Series of several blocks that satisfy some matchers, joined once and remembered: blocks never change.

A query over a day reads the head and four or five blocks. What can be known of the blocks without looking at
its times (which series match, which rows of different blocks are one series, where in which pages their
samples lie, which rows have equal timestamps) is worked out for the first query with these matchers and kept
in the blocks' cache. Only the usual case is joined: floats without start timestamps, in blocks that follow
one another in time. For the rest `BlockJoins.runs` says None, and `mergeselect` does it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tsdb.block import Block, BlockSelection
from tsdb.blockcache import NOT_KEPT, BlockCache, CachePart
from tsdb.errors import NotAtOnceError
from tsdb.keptseries import ROWS_MAX, KeptUnions
from tsdb.kernels import sharedrows as kernels
from tsdb.labels import Matcher
from tsdb.serieslabels import SeriesLabels

I64Array = npt.NDArray[np.int64]

VECTOR_SAMPLES_MAX = 1 << 22
"""Timestamps of all distinct vectors of a select, 32 MiB; beyond it nothing is joined."""

KEPT_BYTES_MAX = 1 << 23
"""What is larger is worked out by each query: one of them must not drive out all others."""

MEMO_BYTES = 512
"""About what queries work out of the labels of a row (`SeriesLabels.memo`); of as many rows as the head keeps
it for."""

_BEGIN_MS, _END_MS = -(1 << 62), 1 << 62


class JoinedRows(NamedTuple):
    """Rows of blocks and head. Row r has runs begins[r]:ends[r]; rows of one of `kind_count` kinds have the
    same timestamp vectors. `head` is the row of each row of the head's selection."""

    labels: SeriesLabels
    begins: I64Array
    ends: I64Array
    kinds: I64Array
    kind_count: int
    head: I64Array


@dataclass(slots=True)
class JoinedRuns:
    """Runs of N samples each, row after row and ascending in time: row i owns `offsets[i]:offsets[i+1]`.

    Run k, of row `rows[k]`, is stream `stream[k]` of page `page[k]` (a place in `pages`, which has numbers of
    block and page), has `length[k]` samples, and is timed by vector `vector[k]`. `vectors` has each block's
    distinct vectors, numbered through; rows of one of `kinds` have the same. `order` are the runs by page and
    stream, and `page_rows` what `rows_of_pages` says of them. Samples lie from first_ms to last_ms.
    """

    labels: SeriesLabels
    offsets: I64Array
    rows: I64Array
    page: I64Array
    stream: I64Array
    vector: I64Array
    length: I64Array
    pages: list[tuple[int, int]]
    vectors: list[I64Array]
    kinds: I64Array
    order: I64Array
    page_rows: I64Array
    first_ms: int
    last_ms: int
    times_key: bytes = field(default=b"", init=False)
    """A digest of `vectors`: selections of the same targets have the same."""
    starts: I64Array = field(init=False)
    """i64[N+1]: place of each run where all follow one another."""
    key: tuple[object, ...] = field(default=(), init=False)
    """Blocks and matchers; empty for what is not remembered."""
    was_read: bool = field(default=False, init=False)
    """Whether most of it has been read: see `tsdb.decodedruns`."""
    _seen: tuple[SeriesLabels, JoinedRows] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.starts = np.zeros(len(self.length) + 1, dtype=np.int64)
        np.cumsum(self.length, out=self.starts[1:])
        digest = hashlib.blake2b(digest_size=16)
        for numbers in self.vectors:
            digest.update(len(numbers).to_bytes(8, "little"))
            digest.update(numbers.data)
        self.times_key = digest.digest()

    def with_head(self, head: SeriesLabels) -> JoinedRows:
        """The rows of the blocks, then those that only the head has. Remembered for the same series."""
        seen = self._seen
        if seen is not None and _same_labels(seen[0], head):
            return seen[1]
        count = len(self.labels)
        joined = SeriesLabels.concat([self.labels, head], self.labels.symbols)
        ids, first = joined.group_first_rows()
        added = len(first) - count
        last = np.full(added, len(self.rows), dtype=np.int64)
        kind_count = int(self.kinds.max(initial=-1)) + 2
        labels = joined.take(first) if added else self.labels
        found = JoinedRows(
            labels.kept() if len(labels) <= ROWS_MAX else labels,
            np.concatenate([self.offsets[:-1], last]),
            np.concatenate([self.offsets[1:], last]),
            np.concatenate([self.kinds, np.full(added, kind_count - 1, dtype=np.int64)]),
            kind_count,
            ids[count:].copy(),
        )
        self._seen = (head, found)
        return found

    def nbytes(self) -> int:
        """What it takes with rows of a head."""
        columns = (self.rows, self.page, self.stream, self.vector, self.length, self.order, self.starts)
        labels = self.labels.offsets.nbytes + self.labels.name_ids.nbytes + self.labels.value_ids.nbytes
        size = sum(column.nbytes for column in columns) + 3 * labels + 6 * self.offsets.nbytes
        if len(self.labels) <= ROWS_MAX:
            size += MEMO_BYTES * len(self.labels)
        return size + 120 * len(self.pages) + sum(numbers.nbytes for numbers in self.vectors)


class JoinedTimes(NamedTuple):
    """Vector v has the timestamps t_ms[offsets[v]:offsets[v+1]]."""

    offsets: I64Array
    t_ms: I64Array


def _same_labels(left: SeriesLabels, right: SeriesLabels) -> bool:
    return left is right or (  # the head gives what it kept (tsdb.keptseries)
        np.array_equal(left.offsets, right.offsets)
        and np.array_equal(left.value_ids, right.value_ids)
        and np.array_equal(left.name_ids, right.name_ids)
    )


def join_selections(selections: Sequence[BlockSelection]) -> JoinedRuns | None:
    """Join whole selections of blocks that ascend in time. None where they are none of the usual case."""
    parts = [selection.placed_runs() for selection in selections]
    spans = [part.span_ms for part in parts if part is not None and len(part.page)]
    if any(part is None for part in parts):
        return None
    placed = [part for part in parts if part is not None]
    if any(before[1] >= after[0] for before, after in itertools.pairwise(spans)):
        return None
    if sum(part.vector_samples for part in placed) > VECTOR_SAMPLES_MAX:
        return None
    labels = [selection.labels for selection in selections]
    joined = SeriesLabels.concat(labels, labels[0].symbols)
    ids, first = joined.group_first_rows()
    run_counts = np.concatenate([np.diff(part.offsets) for part in placed])
    rows = np.repeat(ids, run_counts)
    sources = np.repeat(np.arange(len(placed)), [len(part.page) for part in placed])
    bases = np.cumsum([0, *(len(part.vectors) for part in placed)])[:-1]
    by_row = np.argsort(rows, kind="stable")
    rows, sources = rows[by_row], sources[by_row]
    offsets = np.searchsorted(rows, np.arange(len(first) + 1)).astype(np.int64)
    vector = np.concatenate([part.vector for part in placed])[by_row] + bases[sources]
    kinds = _kinds_of(offsets, rows, vector)
    if kinds is None:
        return None
    keys, page = np.unique(
        (sources << 40) | np.concatenate([part.page for part in placed])[by_row], return_inverse=True
    )
    stream = np.concatenate([part.stream for part in placed])[by_row]
    order = np.lexsort((stream, page))
    return JoinedRuns(
        joined.take(first),
        offsets,
        rows,
        page.astype(np.int64),
        stream,
        vector,
        np.concatenate([part.length for part in placed])[by_row],
        [(key >> 40, key & ((1 << 40) - 1)) for key in keys.tolist()],
        [part.vectors for part in placed],
        kinds,
        order,
        rows_of_pages(rows, page, order),
        min((span[0] for span in spans), default=_END_MS),
        max((span[1] for span in spans), default=_BEGIN_MS),
    )


def rows_of_pages(rows: I64Array, page: I64Array, order: I64Array) -> I64Array:
    """i64[4, P]: first and last row of each page's runs, begin and end of them in `order`."""
    if not len(order):
        return np.empty((4, 0), dtype=np.int64)
    begins = np.flatnonzero(np.diff(page[order], prepend=-1))
    by_page = rows[order]
    first, last = np.minimum.reduceat(by_page, begins), np.maximum.reduceat(by_page, begins)
    return np.stack([first, last, begins, np.append(begins[1:], len(order))])


def _kinds_of(offsets: I64Array, rows: I64Array, vector: I64Array) -> I64Array | None:
    """Number of each row's sequence of vectors; None where hashes collide."""
    keys = np.zeros(len(offsets) - 1, dtype=np.uint64)
    kernels.mix_vectors(rows, vector, keys)
    _, first, kinds = np.unique(keys, return_index=True, return_inverse=True)
    kinds = kinds.astype(np.int64)
    return kinds if kernels.same_vectors(offsets, vector, first.astype(np.int64)[kinds]) else None


def _runs_bytes(runs: JoinedRuns | None) -> int:
    size = 0 if runs is None else runs.nbytes()
    return size if size <= KEPT_BYTES_MAX else NOT_KEPT


def _times_bytes(times: JoinedTimes) -> int:
    size = times.offsets.nbytes + times.t_ms.nbytes
    return size if size <= KEPT_BYTES_MAX else NOT_KEPT


def _read_times(blocks: Sequence[Block], runs: JoinedRuns) -> JoinedTimes:
    read = [block.times.read(numbers) for block, numbers in zip(blocks, runs.vectors, strict=True)]
    counts = np.concatenate([np.diff(offsets) for offsets, _ in read])
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return JoinedTimes(offsets, np.concatenate([t_ms for _, t_ms in read]))


class BlockJoins:
    """Remembered joins of a store's blocks. Any thread."""

    def __init__(self, cache: BlockCache) -> None:
        """Joins count as decoded pieces of blocks."""
        self._runs: CachePart[tuple[tuple[str, ...], tuple[Matcher, ...]], JoinedRuns | None]
        self._runs = cache.part(_runs_bytes)
        self._times: CachePart[tuple[tuple[str, ...], bytes], JoinedTimes]
        self._times = cache.part(_times_bytes)
        self.unions = KeptUnions()
        """Label sets of head and blocks."""

    def runs(
        self, blocks: Sequence[Block], matchers: Sequence[Matcher], at_once: bool, check: Callable[[], None]
    ) -> JoinedRuns | None:
        """Of blocks ascending in time the series that match. None where they cannot be joined. `check` is
        called between two blocks and may raise.

        Raises NotAtOnceError where `at_once` is asked for and nothing is remembered; CorruptionError,
        InvalidRegexError."""

        def join() -> JoinedRuns | None:
            if at_once:
                raise NotAtOnceError("series of blocks are not joined yet")
            found = []
            for block in blocks:
                found.append(block.select(matchers, _BEGIN_MS, _END_MS))
                check()
            joined = join_selections(found)
            if joined is not None:
                joined.key = key
            return joined

        key = tuple([block.meta.ulid for block in blocks]), tuple(matchers)
        return self._runs.get(key, join)

    def times(self, blocks: Sequence[Block], runs: JoinedRuns, at_once: bool) -> JoinedTimes:
        """The timestamps of joined runs, which selections of the same targets have in common. Raises as
        `runs`."""

        def read() -> JoinedTimes:
            if at_once:
                raise NotAtOnceError("timestamps of blocks are not decoded yet")
            return _read_times(blocks, runs)

        return self._times.get((tuple([block.meta.ulid for block in blocks]), runs.times_key), read)

    def clear(self) -> None:
        """Forget everything: blocks were replaced."""
        self._runs.clear()
        self._times.clear()
        self.unions.clear()
