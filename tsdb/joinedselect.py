"""A selection over blocks that were joined once (tsdb.blockjoin) and the head behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np
import numpy.typing as npt

from tsdb.block import Block
from tsdb.blockjoin import JoinedRuns, JoinedTimes
from tsdb.decodedruns import DecodedRuns
from tsdb.errors import NotAtOnceError
from tsdb.headselect import HeadSelection
from tsdb.samplerows import read_rows
from tsdb.select import SampleBatch, Selection, work_bounds_of
from tsdb.serieslabels import SeriesLabels
from tsdb.sharedread import SharedReader

I64Array = npt.NDArray[np.int64]

_NO_SERIES = np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.uint32)


class JoinedSelection:
    """A `select.Selection`. Immutable; any thread may read."""

    def __init__(
        self,
        blocks: Sequence[Block],
        joined: tuple[JoinedRuns, JoinedTimes],
        head: HeadSelection | None,
        span_ms: tuple[int, int],
        otherwise: Callable[[], Selection],
        at_once: bool = False,
        decoded: DecodedRuns | None = None,
    ) -> None:
        """The samples of `span_ms`, both inclusive. `otherwise` makes a selection of the same, which reads
        where the head has samples under those of the blocks; with `at_once` NotAtOnceError is raised then.
        `decoded` keeps what is read often."""
        runs, times = joined
        offsets, none = _NO_SERIES
        labels = SeriesLabels(offsets, none, none, runs.labels.symbols) if head is None else head.labels
        rows = runs.with_head(labels)
        sources = [block.columns for block in blocks]
        self._reader = SharedReader(sources, runs, rows, times, head, span_ms, at_once, decoded)
        head_bounds = np.zeros(len(rows.labels), dtype=np.int64)
        head_work = head_bounds
        if head is not None:
            head_bounds[rows.head] = head.sample_bounds()
            work = work_bounds_of(head)
            if work is not head.sample_bounds():
                head_work = np.zeros_like(head_bounds)
                head_work[rows.head] = work
        self._bounds = self._reader.counts + head_bounds
        self._work = self._reader.counts + head_work
        if not self._bounds.all():
            kept = np.flatnonzero(self._bounds)
            rows = self._reader.keep(kept)
            self._bounds, self._work = self._bounds[kept], self._work[kept]
        self._labels = rows.labels
        self._at_once = at_once
        self._lock, self._make = Lock(), otherwise
        self._other: tuple[Selection, I64Array] | None = None

    @property
    def labels(self) -> SeriesLabels:
        """Label sets of the series: those of the blocks, then what only the head has."""
        return self._labels

    def sample_bounds(self) -> I64Array:
        """i64[S]: the samples in the blocks, and the head's bound."""
        return self._bounds

    def work_bounds(self) -> I64Array:
        """i64[S]: the same with histograms counted by their weight."""
        return self._work

    def shared_reader(self) -> SharedReader:
        """See `tsdb.sharedread`."""
        return self._reader

    def read(self, lo: int, hi: int) -> SampleBatch:
        """Samples of rows lo to hi (exclusive). Raises CorruptionError; NotAtOnceError (see `__init__`)."""
        found = self._reader.read(lo, hi)
        if found is not None:
            return found.batch()
        other, places = self._otherwise()
        return read_rows(other, places[lo:hi])

    def read_rows(self, rows: I64Array) -> SampleBatch:
        """Samples of any rows in the given order. Raises as `read`."""
        other, places = self._otherwise()
        return read_rows(other, places[rows])

    def _otherwise(self) -> tuple[Selection, I64Array]:
        """The other selection, and its row of each of ours."""
        if self._at_once:
            raise NotAtOnceError("the head has samples under those of blocks")
        with self._lock:
            if self._other is None:
                other = self._make()
                both = SeriesLabels.concat([self._labels, other.labels], self._labels.symbols)
                ids, _ = both.group_first_rows()
                count = len(self._labels)
                places = np.empty(len(ids), dtype=np.int64)
                places[ids[count:]] = np.arange(len(other.labels))
                self._other = other, places[ids[:count]]
            return self._other
