"""Reading ahead of the replay: a thread checks, decompresses and decodes what is then applied in order.

Only what needs no head happens here, so that the replay sees the same records with the same damage as if it
had read them itself, and those of each series in the same order (tsdb/walwindow.py).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tsdb.errors import CorruptionError
from tsdb.wal import COMPRESSED, Record, SegmentRead, read_segment
from tsdb.walrecords import PayloadCodec, RecordType
from tsdb.walwindow import ENDS_WINDOW, Bundle, Portion, ReadRecord, WindowOrder

U8Array = npt.NDArray[np.uint8]

AHEAD_LIMIT = 2
"""Windows that wait."""
WINDOW_BYTES_LIMIT = 1 << 26
"""Payloads of a window that are no samples count too."""
_STOP_POLL_S = 0.1


def _read(record: Record, codec: PayloadCodec) -> ReadRecord:
    payload = record.payload
    try:
        payload = codec.unpack(payload, bool(record.flags & COMPRESSED))
        samples: tuple[Bundle, ...] = ()
        if record.kind in (RecordType.SAMPLES, RecordType.LATE_SAMPLES):
            samples = (Bundle([codec.unpack_samples(payload)]),)
    except CorruptionError as error:
        return ReadRecord(record.kind, record.sequence, payload, error=error)
    return ReadRecord(record.kind, record.sequence, payload, samples)


class _Windows:
    """Collects records until a window is full or ends, and hands over what was arranged."""

    def __init__(self, order: WindowOrder) -> None:
        self._order = order
        self._open: Portion = []
        self._samples = self._bytes = 0
        self._alone = False

    def add(self, record: ReadRecord) -> Portion:
        """Take a record; what is due now, mostly nothing."""
        out: Portion = []
        if self._alone or record.kind in ENDS_WINDOW or record.error is not None:
            # Start timestamps are those of the very next record, which must not be joined with others.
            out = [*self.rest(), record]
            self._alone = record.kind == RecordType.STARTS
            return out
        self._open.append(record)
        self._bytes += len(record.payload)
        self._samples += sum(part.count for bundle in record.samples for part in bundle.parts)
        if self._samples >= self._order.sample_limit or self._bytes >= WINDOW_BYTES_LIMIT:
            return self.rest()
        return out

    def rest(self) -> Portion:
        """Everything that was not handed over yet."""
        window, self._open = self._open, []
        self._samples = self._bytes = 0
        return self._order.arrange(window)


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
        codec, windows = PayloadCodec(), _Windows(order)
        try:
            for batch in read_segment(data, number, state):
                due = [each for record in batch for each in windows.add(_read(record, codec))]
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
