"""Reading ahead of the replay: a thread checks, decompresses and decodes what is then applied in order.

Only what needs no head happens here, so that the replay sees the same records in the same order with the same
damage as if it had read them itself.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsdb.errors import CorruptionError
from tsdb.kernels.walcodec import read_keys
from tsdb.wal import COMPRESSED, Record, SegmentRead, read_segment
from tsdb.walrecords import PayloadCodec, RecordType

U8Array = npt.NDArray[np.uint8]

AHEAD_BYTES = 1 << 17
"""Unpacked payloads that are handed over together: little enough to stay in the cache of the processor."""
AHEAD_LIMIT = 3
"""Such portions that wait."""
_STOP_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """Samples of one or several records whose values are still coded (kernels.walcodec).

    `parts` i64[P, 2] are the samples and the bytes of `coded` of each.
    """

    refs: npt.NDArray[np.uint32]
    t_ms: npt.NDArray[np.int64]
    coded: U8Array
    parts: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """One record: its unpacked payload, or its samples, or the error to raise when its turn comes."""

    kind: int
    sequence: int
    payload: U8Array
    samples: SampleRecord | None = None
    error: CorruptionError | None = None


def _read(record: Record, codec: PayloadCodec) -> ReadRecord:
    payload = record.payload
    try:
        payload = codec.unpack(payload, bool(record.flags & COMPRESSED))
        samples = None
        if record.kind in (RecordType.SAMPLES, RecordType.LATE_SAMPLES):
            samples = _samples(payload, codec)
    except CorruptionError as error:
        return ReadRecord(record.kind, record.sequence, payload, error=error)
    return ReadRecord(record.kind, record.sequence, payload, samples)


def _samples(data: U8Array, codec: PayloadCodec) -> SampleRecord:
    payload = codec.unpack_samples(data)
    refs, t_ms = np.empty(payload.count, dtype=np.uint32), np.empty(payload.count, dtype=np.int64)
    if read_keys(payload.keys, payload.count, payload.refs_size, payload.times_size, refs, t_ms):
        raise CorruptionError("samples record does not decode although its checksum is right")
    parts = np.array([[payload.count, len(payload.coded)]], dtype=np.int64)
    return SampleRecord(refs, t_ms, payload.coded, parts)


Portion = list[ReadRecord]


def _joined(records: Portion) -> Portion:
    """Neighbouring records of in-order samples as one; not where start timestamps belong to the first."""
    out: Portion = []
    run: Portion = []
    for record in records:
        if record.kind == RecordType.SAMPLES and record.samples is not None:
            run.append(record)
            if len(run) > 1 or not out or out[-1].kind != RecordType.STARTS:
                continue
            record = run.pop()
        if run:
            out.append(_join(run))
            run = []
        out.append(record)
    if run:
        out.append(_join(run))
    return out


def _join(run: Portion) -> ReadRecord:
    if len(run) == 1:
        return run[0]
    parts = [record.samples for record in run if record.samples is not None]
    samples = SampleRecord(
        np.concatenate([part.refs for part in parts]),
        np.concatenate([part.t_ms for part in parts]),
        np.concatenate([part.coded for part in parts]),
        np.concatenate([part.parts for part in parts]),
    )
    return ReadRecord(run[0].kind, run[0].sequence, run[0].payload, samples)


def read_ahead(data: U8Array, number: int, state: SegmentRead) -> Iterator[ReadRecord]:
    """Records of whole batches as `wal.read_segment` gives them, read by a thread while the caller applies
    earlier ones; records of samples that follow each other come as one.

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
        codec, portion, size = PayloadCodec(), list[ReadRecord](), 0
        try:
            for batch in read_segment(data, number, state):
                records = [_read(record, codec) for record in batch]
                portion.extend(records)
                size += sum(len(record.payload) for record in records)
                if size >= AHEAD_BYTES:
                    if not hand_over(_joined(portion)):
                        return
                    portion, size = [], 0
            hand_over(_joined(portion))
            hand_over(None)
        except BaseException as error:
            # Also what is no Exception: the caller waits for this thread.
            hand_over(_joined(portion))
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
