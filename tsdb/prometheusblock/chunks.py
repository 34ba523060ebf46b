"""The chunk files of a Prometheus block: segments of framed chunks, decoded to columns.

Format: Prometheus's tsdb/docs/format/chunks.md, segment version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsdb.errors import CorruptionError, UnknownVersionError
from tsdb.fs import FileSystem
from tsdb.histogram import HistogramBatch
from tsdb.kernels import promchunks, promhistograms
from tsdb.kernels.xor import READ_PADDING
from tsdb.prometheusblock.checksum import crc_table, kernel_error, number

U8Array = npt.NDArray[np.uint8]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]
F64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

CHUNKS_DIRECTORY = "chunks"
MAGIC = 0x85BD40DD
VERSION = 1
_HEADER_BYTES = 8
_OFFSET_MASK = 0xFFFFFFFF

CUSTOM_VALUES_LIMIT = 1 << 27
"""Custom bounds of one read, repeated for each sample: 1 GiB. Real chunks stay a thousand times below."""


@dataclass(frozen=True, slots=True)
class Chunks:
    """N chunks copied out of the segments; `counts` are their numbers of samples."""

    buffer: U8Array
    starts: I64Array
    lengths: I64Array
    encodings: U8Array
    counts: I64Array

    @property
    def is_histogram(self) -> BoolArray:
        """Mask of the chunks that hold histograms."""
        return ~np.isin(self.encodings, (promchunks.XOR, promchunks.XOR2))

    def keep(self, mask: BoolArray) -> Chunks:
        """The chunks of a mask, over the same bytes."""
        return Chunks(
            self.buffer, self.starts[mask], self.lengths[mask], self.encodings[mask], self.counts[mask]
        )


@dataclass(frozen=True, slots=True)
class Floats:
    """Samples of chunks, one chunk after the other; `start_t_ms` is 0 where unset."""

    t_ms: I64Array
    values: F64Array
    start_t_ms: I64Array


class ChunkFiles:
    """Immutable after construction; any thread may read."""

    def __init__(self, fs: FileSystem, directory: Path) -> None:
        """Raises CorruptionError, UnknownVersionError for a segment that is not one."""
        self._paths = [directory / name for name in fs.list(directory) if name.isdigit()]
        self._segments = [fs.map_file(path) for path in self._paths]
        for path, data in zip(self._paths, self._segments, strict=True):
            if len(data) < _HEADER_BYTES:
                raise CorruptionError(f"{path}: {len(data)} bytes are too few for a chunk segment")
            if number(data, 0, 4) != MAGIC:
                raise CorruptionError(f"{path}: not a chunk segment (magic {number(data, 0, 4):08x})")
            if data[4] != VERSION:
                raise UnknownVersionError(
                    f"{path}: chunk format version {int(data[4])}, this program reads {VERSION}"
                )
        self._directory = directory

    def sample_counts(self, refs: I64Array) -> I64Array:
        """Samples of each chunk, from its header; checksums are not looked at."""
        counts = np.zeros(len(refs), dtype=np.int64)
        scratch = [np.zeros(len(refs), dtype=np.int64) for _ in range(2)]
        self._frames(refs, False, scratch[0], scratch[1], np.zeros(len(refs), dtype=np.uint8), counts)
        return counts

    def read(self, refs: I64Array) -> Chunks:
        """Verified chunks. Raises CorruptionError naming file and byte."""
        starts, lengths, counts = (np.zeros(len(refs), dtype=np.int64) for _ in range(3))
        encodings = np.zeros(len(refs), dtype=np.uint8)
        parts = self._frames(refs, True, starts, lengths, encodings, counts)
        targets = np.cumsum(lengths) - lengths
        buffer = np.zeros(int(lengths.sum()) + READ_PADDING, dtype=np.uint8)
        for segment, which in parts:
            promchunks.copy_frames(segment, starts[which], lengths[which], buffer, targets[which])
        return Chunks(buffer, targets, lengths, encodings, counts)

    def _frames(
        self,
        refs: I64Array,
        verify: bool,
        starts: I64Array,
        lengths: I64Array,
        encodings: U8Array,
        counts: I64Array,
    ) -> list[tuple[U8Array, I64Array]]:
        """Fill the columns; returns the segments used, with the chunks that lie in each."""
        numbers = refs >> 32
        parts = []
        for k in np.unique(numbers).tolist():
            if not 0 <= k < len(self._segments):
                raise CorruptionError(
                    f"{self._directory}: a series names segment {k + 1} of {len(self._segments)}"
                )
            which = np.flatnonzero(numbers == k)
            offsets = refs[which] & _OFFSET_MASK
            n = len(which)
            at, size, found = (np.empty(n, dtype=np.int64) for _ in range(3))
            encoding = np.empty(n, dtype=np.uint8)
            code = promchunks.read_frames(
                self._segments[k], offsets, crc_table(), verify, at, size, encoding, found
            )
            if code:
                place, reason = kernel_error(int(code))
                raise CorruptionError(f"{self._paths[k]}: chunk at byte {int(offsets[place])} {reason}")
            starts[which], lengths[which], encodings[which], counts[which] = at, size, encoding, found
            parts.append((self._segments[k], which))
        return parts


def decode_floats(chunks: Chunks, where: str) -> Floats:
    """Samples of XOR and XOR2 chunks. Raises CorruptionError naming `where`."""
    total = int(chunks.counts.sum())
    t_ms, values = np.empty(total, dtype=np.int64), np.empty(total, dtype=np.uint64)
    starts = np.zeros(total, dtype=np.int64)
    code = promchunks.decode_floats(
        chunks.buffer, chunks.starts, chunks.lengths, chunks.encodings, t_ms, values, starts
    )
    if code < 0:
        raise CorruptionError(f"{where}: a chunk of floats {kernel_error(int(code))[1]}")
    return Floats(t_ms, values.view(np.float64), starts)


def decode_histograms(chunks: Chunks, row_offsets: I64Array, where: str) -> HistogramBatch:
    """Samples of histogram chunks, laid out as rows by `row_offsets`. Raises CorruptionError.

    Counter-reset hints are those that Prometheus answers: unknown for the first sample of a chunk, no reset
    for the rest, gauge for gauges. A stale marker has no buckets.
    """
    n, total = len(chunks.starts), int(chunks.counts.sum())
    positive, negative, customs = (np.zeros(n, dtype=np.int64) for _ in range(3))
    code = promhistograms.measure_histograms(
        chunks.buffer, chunks.starts, chunks.lengths, positive, negative, customs
    )
    if code:
        raise CorruptionError(f"{where}: a histogram chunk {kernel_error(int(code))[1]}")
    longest = int((positive + negative).max(initial=0))
    # A bucket of a sample takes a bit at least.
    rooms = [int(np.minimum(chunks.counts * side, 8 * chunks.lengths).sum()) for side in (positive, negative)]
    custom_room = int((chunks.counts * customs).sum())
    if custom_room > CUSTOM_VALUES_LIMIT:
        raise CorruptionError(
            f"{where}: histogram chunks hold {custom_room} custom bounds, more than {CUSTOM_VALUES_LIMIT}"
        )
    t_ms, starts = np.empty(total, dtype=np.int64), np.zeros(total, dtype=np.int64)
    schema, hint = np.empty(total, dtype=np.int32), np.empty(total, dtype=np.uint8)
    is_float = np.empty(total, dtype=np.uint8)
    numbers = np.empty((4, total), dtype=np.uint64)
    ends = np.zeros((3, total + 1), dtype=np.int64)
    indices = [np.empty(room, dtype=np.int32) for room in rooms]
    buckets = [np.empty(room, dtype=np.uint64) for room in rooms]
    custom_values = np.empty(custom_room, dtype=np.uint64)
    code = promhistograms.decode_histograms(
        chunks.buffer,
        chunks.starts,
        chunks.lengths,
        chunks.encodings,
        chunks.counts,
        np.zeros(promhistograms.SCRATCH_FIELDS * longest, dtype=np.int64),
        np.empty(longest, dtype=np.int32),
        np.empty(int(customs.max(initial=0)), dtype=np.uint64),
        t_ms,
        starts,
        schema,
        hint,
        numbers,
        ends,
        indices[0],
        buckets[0],
        indices[1],
        buckets[1],
        custom_values,
        is_float,
    )
    if code < 0:
        raise CorruptionError(f"{where}: a histogram chunk {kernel_error(int(code))[1]}")
    floats = numbers.view(np.float64)
    pos, neg, custom = (int(end) for end in ends[:, -1])
    return HistogramBatch(
        row_offsets=row_offsets,
        t_ms=t_ms,
        start_t_ms=starts if starts.any() else None,
        schema=schema,
        reset_hint=hint,
        zero_threshold=floats[0],
        zero_count=floats[1],
        count=floats[2],
        sum=floats[3],
        pos_offsets=ends[0],
        pos_index=indices[0][:pos],
        pos_count=buckets[0][:pos].view(np.float64),
        neg_offsets=ends[1],
        neg_index=indices[1][:neg],
        neg_count=buckets[1][:neg].view(np.float64),
        custom_offsets=ends[2],
        custom_values=custom_values[:custom].view(np.float64),
        is_float=is_float,
    )
