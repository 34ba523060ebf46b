"""Walks over a BPF ring buffer and over the records taken out of it.

Ring: each record is a u32 length (bit 31 busy, bit 30 discarded), a u32, and the bytes, padded to 8. The data
area is mapped twice in a row, so no record wraps. Records: 128 header bytes, then fields of u32 slot,
u32 length and bytes padded to 8. Scan and fields together: 60 ns an event (2026-11-23, 2 cores).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.compile import inline, kernel

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

DAMAGED = -1

_BUSY = 0x80000000
_DISCARDED = 0x40000000
_HEADER_BYTES = 128


@inline
def _word(data: U8, at: int) -> int:
    """The little-endian u32 at a position."""
    low = np.int64(data[at]) | np.int64(data[at + 1]) << 8
    high = np.int64(data[at + 2]) << 16 | np.int64(data[at + 3]) << 24
    return low | high  # type: ignore[return-value]


@kernel("int64(Array(uint8, 1, 'C', True), int64, int64, int64, int64[::1], int64[::1])", group="watch")
def scan(ring: U8, ring_bytes: int, consumer: int, producer: int, starts: I64, end: I64) -> int:
    """Find the finished records between two positions; at most `len(starts)`.

    Fills `starts` with positions of their bytes, counted from the consumer's position, and `end[0]` with the
    new consumer position. Returns the number of records, or `DAMAGED` when a length runs past the producer.
    """
    position = consumer
    count = 0
    while position < producer and count < len(starts):
        at = position & (ring_bytes - 1)
        length = _word(ring, at)
        if length & _BUSY:
            break
        size = length & (_DISCARDED - 1)
        following = position + ((size + 15) >> 3 << 3)
        if following > producer:
            return DAMAGED
        if not length & _DISCARDED:
            starts[count] = position - consumer + 8
            count += 1
        position = following
    end[0] = position
    return count


@kernel(
    "int64(Array(uint8, 1, 'C', True), int64[::1], uint8[:,::1], int32[:,::1], int32[:,::1])", group="watch"
)
def split(data: U8, starts: I64, headers: U8, offsets: I32, lengths: I32) -> int:
    """Copy each record's header and find its fields.

    `offsets` and `lengths` are (records, slots): where in `data` a slot's bytes lie; length -1 when a
    record has no such field. Returns 0, or `DAMAGED` for a record that runs past the end of `data`.
    """
    slots = offsets.shape[1]
    for row in range(len(starts)):
        start = starts[row]
        if start < 0 or start + _HEADER_BYTES > len(data):
            return DAMAGED
        for at in range(_HEADER_BYTES):
            headers[row, at] = data[start + at]
        for slot in range(slots):
            offsets[row, slot] = 0
            lengths[row, slot] = -1
        end = start + _word(data, start + 100)
        if end > len(data) or end < start + _HEADER_BYTES:
            return DAMAGED
        position = start + _HEADER_BYTES
        while position + 8 <= end:
            slot = _word(data, position)
            length = _word(data, position + 4)
            if position + 8 + length > end or slot >= slots:
                return DAMAGED
            offsets[row, slot] = position + 8
            lengths[row, slot] = length
            position += (length + 15) >> 3 << 3
    return 0
