"""A small store behind the appender interface, with Prometheus's rules of order."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt

from tsdb.columns import AppendResult, Exemplar, HistogramColumns, Metadata, Rejected, WriteBatch
from tsdb.labels import Labels
from tsdb.select import STALE_BITS

FUTURE_MS = 600_000


class FakeStore:
    """An appender. Any thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rows: list[Labels] = []
        self.samples: dict[int, list[tuple[int, int]]] = {}
        self.histograms: list[HistogramColumns] = []
        self.exemplars: list[Exemplar] = []
        self.metadata: list[Metadata] = []
        self.refs_calls = 0
        self.appends = 0
        self.forgotten: set[int] = set()
        self._by_labels: dict[Labels, int] = {}

    def refs(self, rows: Sequence[Labels]) -> npt.NDArray[np.uint32]:
        """Refs, created as needed."""
        with self.lock:
            self.refs_calls += len(rows)
            found = []
            for labels in rows:
                ref = self._by_labels.get(labels)
                if ref is None or ref in self.forgotten:
                    ref = self._by_labels[labels] = len(self.rows)
                    self.rows.append(labels)
                    self.samples[ref] = []
                found.append(ref)
            return np.array(found, np.uint32)

    def append(self, batch: WriteBatch, *, atomic: bool = False, now_ms: int | None = None) -> AppendResult:
        """Store sample by sample."""
        with self.lock:
            self.appends += 1
            columns = batch.samples
            codes = np.zeros(len(columns.refs) if columns is not None else 0, np.uint8)
            if columns is not None:
                bits = columns.values.view(np.uint64)
                triples = zip(columns.refs.tolist(), columns.t_ms.tolist(), bits.tolist(), strict=True)
                for i, (ref, t_ms, value) in enumerate(triples):
                    codes[i] = self._append_one(ref, t_ms, value, now_ms)
            if batch.histograms is not None:
                self.histograms.append(batch.histograms)
            self.exemplars += batch.exemplars
            self.metadata += batch.metadata
            durable: Future[None] = Future()
            durable.set_result(None)
            stored = int(np.count_nonzero(codes == 0))
            histogram_refs = batch.histograms.refs.tolist() if batch.histograms is not None else []
            unknown = [Rejected.UNKNOWN_SERIES if ref in self.forgotten else 0 for ref in histogram_refs]
            histogram_codes = np.array(unknown, np.uint8)
            return AppendResult(codes, histogram_codes, stored, durable)

    def _append_one(self, ref: int, t_ms: int, value: int, now_ms: int | None) -> Rejected:
        if ref in self.forgotten:
            return Rejected.UNKNOWN_SERIES
        if now_ms is not None and t_ms > now_ms + FUTURE_MS:
            return Rejected.OUT_OF_BOUNDS
        held = self.samples[ref]
        if held and t_ms < held[-1][0]:
            return Rejected.OUT_OF_ORDER
        if held and t_ms == held[-1][0]:
            return Rejected.NO if held[-1][1] == value else Rejected.DUPLICATE
        held.append((t_ms, value))
        return Rejected.NO

    def forget(self) -> None:
        """All series are garbage collected: their refs are no longer known."""
        with self.lock:
            self.forgotten.update(range(len(self.rows)))

    def all(self) -> dict[str, list[tuple[int, float | str]]]:
        """Samples by the text of their series; stale markers as `stale`."""
        with self.lock:
            found: dict[str, list[tuple[int, float | str]]] = {}
            for ref, labels in enumerate(self.rows):
                shown = [
                    (t, "stale" if bits == STALE_BITS else _float(bits)) for t, bits in self.samples[ref]
                ]
                found.setdefault(str(labels), []).extend(shown)
            return found

    def values(self, series: str) -> list[float | str]:
        """Values of one series in order."""
        return [value for _, value in self.all().get(series, [])]


def _float(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])
