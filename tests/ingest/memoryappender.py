"""An appender that keeps everything in dictionaries and follows the rules of `tsdb.columns.Appender`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from tsdb.columns import AppendResult, Rejected, U32Array, WriteBatch
from tsdb.errors import LimitError
from tsdb.labels import Labels

NOW_MS = 1_700_000_000_000
AHEAD_MS_MAX = 600_000


class MemoryAppender:
    """`samples[labels][t_ms]` are value bits. `durable_now` False leaves the futures to the test."""

    def __init__(self, series_max: int = 1_000_000) -> None:
        self.series: list[Labels] = []
        self.samples: dict[Labels, dict[int, int]] = {}
        self.batches: list[WriteBatch] = []
        self.series_max = series_max
        self.durable_now = True
        self.futures: list[Future[None]] = []
        self.forgotten: set[int] = set()
        self.error: Exception | None = None

    def refs(self, rows: Sequence[Labels]) -> U32Array:
        new = {row for row in rows if row not in self.samples}
        if len(self.samples) + len(new) > self.series_max:
            raise LimitError(f"series limit of {self.series_max} reached")
        for row in rows:
            if row not in self.samples or self.series.index(row) in self.forgotten:
                if row in self.series:
                    self.series[self.series.index(row)] = Labels()
                self.series.append(row)
                self.samples.setdefault(row, {})
        return np.array([self.series.index(row) for row in rows], dtype=np.uint32)

    def append(self, batch: WriteBatch, *, atomic: bool = False, now_ms: int | None = None) -> AppendResult:
        if self.error is not None:
            raise self.error
        self.batches.append(batch)
        codes, texts, staged = [], [], {}
        if batch.samples is not None:
            bits = batch.samples.values.view(np.uint64).tolist()
            for ref, t, value in zip(
                batch.samples.refs.tolist(), batch.samples.t_ms.tolist(), bits, strict=True
            ):
                code, text = self._judge(ref, t, value, staged)
                codes.append(code)
                texts += [text] if code else []
                if not code:
                    staged[ref, t] = value
        histogram_count = 0 if batch.histograms is None else len(batch.histograms.refs)
        if not (atomic and any(codes)):
            for (ref, t), value in staged.items():
                self.samples[self.series[ref]][t] = value
        future: Future[None] = Future()
        if self.durable_now:
            future.set_result(None)
        self.futures.append(future)
        return AppendResult(
            np.array(codes, dtype=np.uint8),
            np.zeros(histogram_count, dtype=np.uint8),
            0 if atomic and any(codes) else codes.count(0),
            future,
            texts,
        )

    def _judge(
        self, ref: int, t: int, value: int, staged: dict[tuple[int, int], int]
    ) -> tuple[Rejected, str]:
        if ref in self.forgotten:
            return Rejected.UNKNOWN_SERIES, "unknown series"
        if t > NOW_MS + AHEAD_MS_MAX:
            return Rejected.OUT_OF_BOUNDS, "out of bounds: timestamp is too far in the future"
        known = self.samples[self.series[ref]] | {at: v for (r, at), v in staged.items() if r == ref}
        if t in known:
            same = known[t] == value
            return (Rejected.NO, "") if same else (Rejected.DUPLICATE, f"duplicate sample for timestamp {t}")
        if known and t < max(known):
            return Rejected.OUT_OF_ORDER, "out of order sample"
        return Rejected.NO, ""
