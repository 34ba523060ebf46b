"""Float samples of a record of Prometheus's write-ahead log.

Enter: the record's bytes after its type; leave: references, timestamps and value bits. Layout: u64 first
reference, u64 first time (big-endian), then for each sample zigzag varints of the differences to these and
the value's 64 bits. Every read is checked against the end.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.bits import Word, load64, swap64
from tsdb.kernels.compile import kernel
from tsdb.kernels.promchunks import byte_uvarint, zigzag

U8Array = npt.NDArray[np.uint8]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

SAMPLE_BYTES_MIN = 10
HEAD_BYTES = 16


@kernel(
    "int64(Array(uint8, 1, 'C', readonly=True), int64[::1], int64[::1], uint64[::1])",
    group="import",
)
def decode_samples(record: U8Array, out_ref: I64Array, out_t: I64Array, out_v: U64Array) -> Word:
    """Number of samples, or -1 for damage; the outputs have room for len / SAMPLE_BYTES_MIN."""
    end = np.int64(len(record))
    if end < HEAD_BYTES:
        return np.int64(0 if end == 0 else -1)
    ref = np.int64(swap64(load64(record, 0)))
    t = np.int64(swap64(load64(record, 8)))
    at = np.int64(HEAD_BYTES)
    count = np.int64(0)
    while at < end:
        raw_ref, at = byte_uvarint(record, at, end)
        if at < 0:
            return np.int64(-1)
        raw_t, at = byte_uvarint(record, at, end)
        if at < 0 or at + 8 > end:
            return np.int64(-1)
        out_ref[count] = ref + zigzag(raw_ref)
        out_t[count] = t + zigzag(raw_t)
        out_v[count] = swap64(load64(record, at))
        at += 8
        count += 1
    return count
