"""Reading ahead of the replay: a thread checks records and takes them apart, which are then applied in order.

Only what needs no head happens here, so that the replay sees the same records with the same damage as if it
had read them itself, and those of each series in the same order (tsdb/walwindow.py). Records of samples are
rows of tables that kernels fill; Python looks at the others, at packed ones and at damage.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tsdb.errors import CorruptionError
from tsdb.kernels.bundletimes import (
    CODED_AT,
    CODED_SIZE,
    COUNT,
    KEYS_AT,
    KEYS_SIZE,
    PART_WORDS,
)
from tsdb.kernels.walscan import (
    NOT_READ,
    RECORD_WORDS,
    checksum_tables,
    scan_records,
)
from tsdb.wal import COMPRESSED, Record, SegmentRead, read_batches, read_header
from tsdb.walrecords import PayloadCodec, RecordType
from tsdb.walwindow import ENDS_WINDOW, NO_BYTES, Bundle, Portion, ReadRecord, WindowOrder

U8Array = npt.NDArray[np.uint8]
I64Array = npt.NDArray[np.int64]

AHEAD_LIMIT = 2
"""Windows that wait."""
WINDOW_BYTES_LIMIT = 1 << 26
"""Payloads of a window that are no samples count too."""
RECORDS_AT_ONCE = 4096
_STOP_POLL_S = 0.1


def _read(record: Record, codec: PayloadCodec) -> ReadRecord:
    payload = record.payload
    try:
        payload = codec.unpack(payload, bool(record.flags & COMPRESSED))
        samples: tuple[Bundle, ...] = ()
        if record.kind in (RecordType.SAMPLES, RecordType.LATE_SAMPLES):
            samples = (Bundle.of([codec.unpack_samples(payload)]),)
    except CorruptionError as error:
        return ReadRecord(record.kind, record.sequence, payload, error=error)
    return ReadRecord(record.kind, record.sequence, payload, samples)


class _Windows:
    """Collects records until a window is full or ends, and hands over what was arranged."""

    def __init__(self, order: WindowOrder, data: U8Array) -> None:
        self._order, self._data = order, data
        self._open: list[ReadRecord | I64Array] = []
        """Rows of records of samples, and what is none."""
        self._extra = bytearray()
        """Bytes of samples that are not in the segment as they are."""
        self._samples = self._bytes = 0
        self._alone = False

    def add(self, record: ReadRecord) -> Portion:
        """Take a record; what is due now, mostly nothing."""
        if self._alone or record.kind in ENDS_WINDOW or record.error is not None:
            # Start timestamps are those of the very next record, which must not be joined with others.
            out = [*self.rest(), record]
            self._alone = record.kind == RecordType.STARTS
            return out
        if record.samples:
            (bundle,) = record.samples
            rows = bundle.records.copy()
            rows[:, [KEYS_AT, CODED_AT]] = ~(rows[:, [KEYS_AT, CODED_AT]] + len(self._extra))
            self._extra += bundle.data.data
            return self.add_rows(rows)
        self._open.append(record)
        self._bytes += len(record.payload)
        return self._full()

    def add_rows(self, rows: I64Array) -> Portion:
        """Take records of samples, i64[P, 8] (kernels.bundletimes); what is due now."""
        out: Portion = []
        if self._alone and len(rows):
            self._alone = False
            out = [*self.rest(), self._record(rows[:1])]
            rows = rows[1:]
        while len(rows):
            counts = np.cumsum(rows[:, COUNT])
            size = int(np.searchsorted(counts, self._order.sample_limit - self._samples)) + 1
            taken, rows = rows[:size], rows[size:]
            self._open.append(taken)
            self._samples += int(taken[:, COUNT].sum())
            self._bytes += int(taken[:, [KEYS_SIZE, CODED_SIZE]].sum())
            out += self._full()
        return out

    def _full(self) -> Portion:
        if self._samples >= self._order.sample_limit or self._bytes >= WINDOW_BYTES_LIMIT:
            return self.rest()
        return []

    def _record(self, rows: I64Array, extra: U8Array = NO_BYTES) -> ReadRecord:
        return ReadRecord(RecordType.SAMPLES, 0, NO_BYTES, (Bundle(self._data, extra, rows),))

    def rest(self) -> Portion:
        """Everything that was not handed over yet."""
        extra = np.frombuffer(bytes(self._extra), dtype=np.uint8) if self._extra else NO_BYTES
        window = [each if isinstance(each, ReadRecord) else self._record(each, extra) for each in self._open]
        self._open, self._extra = [], bytearray()
        self._samples = self._bytes = 0
        return self._order.arrange(window)


class _Reader:
    """Reads one segment."""

    def __init__(self, data: U8Array, state: SegmentRead, windows: _Windows) -> None:
        self._data, self._state, self._windows = data, state, windows
        self._codec = PayloadCodec()

    def portions(self) -> Iterator[Portion]:
        """What is due, as it becomes so, to the end or the first damage."""
        data, state = self._data, self._state
        tables = checksum_tables()
        while True:
            records = np.empty((RECORDS_AT_ONCE, RECORD_WORDS), dtype=np.int64)
            parts = np.empty((RECORDS_AT_ONCE, PART_WORDS), dtype=np.int64)
            progress = np.array([state.good_bytes, state.sequence], dtype=np.int64)
            count = scan_records(data, progress, tables, records, parts)
            if count:
                state.good_bytes, state.sequence = progress.tolist()
                yield self._take(records[:count], parts[:count])
                continue
            # The end, damage, or a batch of more records than these tables have rows.
            batch = next(read_batches(data, state), None)
            if batch is None:
                return
            yield [each for record in batch for each in self._windows.add(_read(record, self._codec))]

    def _take(self, records: I64Array, parts: I64Array) -> Portion:
        out: Portion = []
        done = 0
        for i in np.flatnonzero(parts[:, COUNT] == NOT_READ).tolist():
            out += self._windows.add_rows(parts[done:i])
            kind, flags, sequence, at, size = records[i].tolist()
            record = Record(kind, flags, sequence, self._data[at : at + size])
            out += self._windows.add(_read(record, self._codec))
            done = i + 1
        return out + self._windows.add_rows(parts[done:])


def read_ahead(data: U8Array, number: int, state: SegmentRead, order: WindowOrder) -> Iterator[ReadRecord]:
    """Records of whole batches as `wal.read_segment` gives them, read by a thread while the caller applies
    earlier ones; those of a window come in the order of `WindowOrder`.

    `state` is final when the iterator is exhausted. Raises what `read_segment` raises, at its place.
    """
    portions: queue.Queue[Portion | BaseException | None] = queue.Queue(AHEAD_LIMIT)
    stop = threading.Event()

    def hand_over(item: Portion | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                portions.put(item, timeout=_STOP_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        windows = _Windows(order, data)
        try:
            if read_header(data, number, state):
                for due in _Reader(data, state, windows).portions():
                    if due and not hand_over(due):
                        return
            hand_over(windows.rest())
            hand_over(None)
        except BaseException as error:
            # Also what is no Exception: the caller waits for this thread.
            hand_over(windows.rest())
            hand_over(error)

    thread = threading.Thread(target=read, name="wal-reader", daemon=True)
    thread.start()
    try:
        while (item := portions.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield from item
    finally:
        stop.set()
        thread.join()
