"""Native histograms as columns.

Queries see one form: absolute float counts per populated bucket, spans as start index and length. Integer
histograms are converted when read (counts above 2^53 round, as in Prometheus).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

I64Array = npt.NDArray[np.int64]
I32Array = npt.NDArray[np.int32]
U8Array = npt.NDArray[np.uint8]
F64Array = npt.NDArray[np.float64]

CUSTOM_BUCKETS_SCHEMA = -53


class ResetHint(enum.IntEnum):
    """Counter-reset hint of a histogram sample; the numbers are those of the wire format."""

    UNKNOWN = 0
    RESET = 1
    NOT_RESET = 2
    GAUGE = 3


@dataclass(frozen=True, slots=True)
class HistogramBatch:
    """H histogram samples of R rows: a pool in structure-of-arrays form plus a CSR of rows over it.

    Buckets are dense within a side: spans are already expanded to one absolute bucket index per populated
    bucket, in ascending order, so kernels never walk spans. Sample h owns buckets
    `pos_offsets[h] .. pos_offsets[h+1]` of `pos_index` (absolute index at the sample's schema; for custom
    buckets 0 is the first) and `pos_count` (absolute counts); likewise the negative side; and custom bounds
    `custom_offsets[h] .. custom_offsets[h+1]` of `custom_values`. A stale histogram has the stale marker in
    `sum`. `is_float` u8[H] remembers which were float histograms when written.
    Shapes: `row_offsets` i64[R+1]; per sample [H]; offsets i64[H+1].
    """

    row_offsets: I64Array
    t_ms: I64Array
    start_t_ms: I64Array | None
    schema: I32Array
    reset_hint: U8Array
    zero_threshold: F64Array
    zero_count: F64Array
    count: F64Array
    sum: F64Array
    pos_offsets: I64Array
    pos_index: I32Array
    pos_count: F64Array
    neg_offsets: I64Array
    neg_index: I32Array
    neg_count: F64Array
    custom_offsets: I64Array
    custom_values: F64Array
    is_float: U8Array

    def __len__(self) -> int:
        return len(self.t_ms)
