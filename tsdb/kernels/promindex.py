"""Series entries of a Prometheus block's index: label pairs and chunk references.

Enter: the mapped index file and offsets of entries; leave: columns. A first kernel verifies and measures, a
second reads (Prometheus's tsdb/docs/format/index.md, Series).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.bits import Word
from tsdb.kernels.compile import device, kernel
from tsdb.kernels.promchunks import (
    ERROR_CHECKSUM,
    ERROR_DATA,
    ERROR_FACTOR,
    ERROR_TRUNCATED,
    big_endian32,
    byte_uvarint,
    crc32c,
    zigzag,
)

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]

_RAW = "Array(uint8, 1, 'C', readonly=True)"


@device
def _entry(buffer: U8Array, offset: Word) -> tuple[Word, Word]:
    """Where the body of an entry begins and ends, -1 where it does not fit into the file."""
    size = np.int64(len(buffer))
    if offset < 0 or offset >= size:
        return np.int64(-1), np.int64(-1)
    raw, at = byte_uvarint(buffer, offset, size)
    if at < 0 or raw > np.uint64(size) or at + np.int64(raw) + 4 > size:
        return np.int64(-1), np.int64(-1)
    return at, at + np.int64(raw)


@device
def _skip_labels(buffer: U8Array, at: Word, end: Word, symbol_count: Word) -> tuple[Word, Word]:
    """Number of label pairs and the position after them, -1 for damage: names ascend, symbols exist."""
    pairs, at = byte_uvarint(buffer, at, end)
    if at < 0 or pairs > np.uint64(end - at):
        return np.int64(0), np.int64(-1)
    before = np.int64(-1)
    for _ in range(np.int64(pairs)):
        name, at = byte_uvarint(buffer, at, end)
        if at < 0:
            return np.int64(0), np.int64(-1)
        value, at = byte_uvarint(buffer, at, end)
        if at < 0 or name >= np.uint64(symbol_count) or value >= np.uint64(symbol_count):
            return np.int64(0), np.int64(-1)
        if np.int64(name) <= before:
            return np.int64(0), np.int64(-1)
        before = np.int64(name)
    return np.int64(pairs), at


@kernel(
    f"int64({_RAW}, int64[::1], uint32[::1], int64, int64[::1], int64[::1])",
    group="import",
)
def measure_series(
    buffer: U8Array,
    offsets: I64Array,
    table: U32Array,
    symbol_count: int,
    label_counts: I64Array,
    chunk_counts: I64Array,
) -> Word:
    """Verify entries; count their label pairs and chunks. 0 or an error (promchunks.ERROR_FACTOR)."""
    for i in range(len(offsets)):
        at, end = _entry(buffer, offsets[i])
        if at < 0:
            return -np.int64(i * ERROR_FACTOR + ERROR_TRUNCATED)
        if crc32c(buffer, at, end - at, table) != big_endian32(buffer, end):
            return -np.int64(i * ERROR_FACTOR + ERROR_CHECKSUM)
        pairs, at = _skip_labels(buffer, at, end, symbol_count)
        if at < 0:
            return -np.int64(i * ERROR_FACTOR + ERROR_DATA)
        chunks, at = byte_uvarint(buffer, at, end)
        if at < 0 or chunks > np.uint64(end - at):
            return -np.int64(i * ERROR_FACTOR + ERROR_DATA)
        label_counts[i], chunk_counts[i] = pairs, np.int64(chunks)
        for _ in range(3 * np.int64(chunks)):
            _, at = byte_uvarint(buffer, at, end)
            if at < 0:
                return -np.int64(i * ERROR_FACTOR + ERROR_DATA)
    return np.int64(0)


@kernel(f"void({_RAW}, int64[::1], int64[::1], uint32[::1], uint32[::1])", group="import")
def read_labels(
    buffer: U8Array, offsets: I64Array, label_offsets: I64Array, names: U32Array, values: U32Array
) -> None:
    """Symbol numbers of the label pairs of measured entries, to `label_offsets[i] ..`."""
    for i in range(len(offsets)):
        at, end = _entry(buffer, offsets[i])
        _, at = byte_uvarint(buffer, at, end)
        for k in range(label_offsets[i], label_offsets[i + 1]):
            name, at = byte_uvarint(buffer, at, end)
            value, at = byte_uvarint(buffer, at, end)
            names[k], values[k] = name, value


@kernel(
    f"void({_RAW}, int64[::1], int64[::1], int64[::1], int64[::1], int64[::1])",
    group="import",
)
def read_chunk_refs(
    buffer: U8Array,
    offsets: I64Array,
    chunk_offsets: I64Array,
    mint: I64Array,
    maxt: I64Array,
    refs: I64Array,
) -> None:
    """Times and references of the chunks of measured entries, to `chunk_offsets[i] ..`."""
    for i in range(len(offsets)):
        at, end = _entry(buffer, offsets[i])
        pairs, at = byte_uvarint(buffer, at, end)
        for _ in range(2 * np.int64(pairs)):
            _, at = byte_uvarint(buffer, at, end)
        _, at = byte_uvarint(buffer, at, end)
        t = ref = np.int64(0)
        first = chunk_offsets[i]
        for k in range(first, chunk_offsets[i + 1]):
            raw, at = byte_uvarint(buffer, at, end)
            t += zigzag(raw) if k == first else np.int64(raw)
            mint[k] = t
            raw, at = byte_uvarint(buffer, at, end)
            t += np.int64(raw)
            maxt[k] = t
            raw, at = byte_uvarint(buffer, at, end)
            ref += np.int64(raw) if k == first else zigzag(raw)
            refs[k] = ref
