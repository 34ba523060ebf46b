"""Sealed chunks of the head: an append-only log of chunk bytes in segments.

A chunk's position is `segment << SEGMENT_SHIFT | offset`. Bytes never change once a chunk is sealed, so
readers need no lock; a reader holds the segments it reads, and dropping a segment frees it when the last
reader is done.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.arena import reserve
from tsdb.kernels.headread import OPEN_CHUNK, gather_bytes
from tsdb.kernels.xor import READ_PADDING

U8Array = npt.NDArray[np.uint8]
I64Array = npt.NDArray[np.int64]

SEGMENT_SHIFT = 26
SEGMENT_BYTES = 1 << SEGMENT_SHIFT
"""64 MiB: 350,000 chunks of node-exporter data, so a two-hour head of 100,000 series has a handful."""


class ChunkLog:
    """One writer under the head's lock, many readers of what was sealed before they captured."""

    def __init__(self) -> None:
        self.segments: dict[int, U8Array] = {}
        self.current_index = -1
        self.current: U8Array = np.empty(0, dtype=np.uint8)
        self.rotate()

    @property
    def base(self) -> int:
        """Position of the current segment's first byte."""
        return self.current_index << SEGMENT_SHIFT

    def rotate(self) -> None:
        """Begin a segment."""
        self.current_index += 1
        self.current = reserve(np.uint8, SEGMENT_BYTES)
        self.segments[self.current_index] = self.current

    def drop_before(self, position: int) -> None:
        """Let go of segments whose chunks are all older than the chunk at a position."""
        for index in [i for i in self.segments if i < min(position >> SEGMENT_SHIFT, self.current_index)]:
            del self.segments[index]

    def view(self) -> dict[int, U8Array]:
        """The segments as of now, for one reader."""
        return dict(self.segments)


def gather(
    segments: dict[int, U8Array], chunks: I64Array, open_bytes: U8Array
) -> tuple[U8Array, I64Array, I64Array]:
    """Bytes of chunks i64[C, 2] (position, length) side by side, padded for the decoder; starts and
    lengths."""
    lengths = np.ascontiguousarray(chunks[:, 1])
    starts = np.zeros(len(chunks), dtype=np.int64)
    np.cumsum(lengths[:-1], out=starts[1:])
    buffer = np.empty(int(lengths.sum()) + READ_PADDING, dtype=np.uint8)
    buffer[-READ_PADDING:] = 0
    sources = chunks[:, 0] >> SEGMENT_SHIFT
    opened = OPEN_CHUNK >> SEGMENT_SHIFT
    for source in np.unique(np.minimum(sources, opened)).tolist():
        picked = np.flatnonzero(sources >= opened if source == opened else sources == source)
        origin = OPEN_CHUNK if source == opened else source << SEGMENT_SHIFT
        data = open_bytes if source == opened else segments[source]
        gather_bytes(data, chunks[picked, 0] - origin, lengths[picked], starts[picked], buffer)
    return buffer, starts, lengths
