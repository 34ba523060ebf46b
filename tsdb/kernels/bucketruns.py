"""Runs of buckets of the head's native histograms: where copies of them begin, and the copies.

numpy takes a dozen calls a side for this, longer than the copying where a query reads few histograms.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.compile import kernel

I32Array = npt.NDArray[np.int32]
I64Array = npt.NDArray[np.int64]
F64Array = npt.NDArray[np.float64]


@kernel("void(int64[::1], int32[:,::1], int64[:,::1])", group="read")
def place_runs(entries: I64Array, lengths: I32Array, offsets: I64Array) -> None:
    """`offsets` i64[3, N+1]: where the runs of each entry begin, of positive and negative buckets and of
    bounds, when they follow one another. `lengths` i32[:, 3] are those of all entries of the head."""
    for side in range(3):
        offsets[side, 0] = 0
        for i in range(len(entries)):
            offsets[side, i + 1] = offsets[side, i] + lengths[entries[i], side]


@kernel(
    "void(int64[::1], int64[:,::1], int64[::1], int64, int32[::1], float64[::1], int32[::1], float64[::1])",
    group="read",
)
def copy_buckets(
    entries: I64Array,
    starts: I64Array,
    offsets: I64Array,
    side: int,
    index: I32Array,
    counts: F64Array,
    out_index: I32Array,
    out_counts: F64Array,
) -> None:
    """The buckets of one side of the entries to their places; `starts` i64[:, 3] are those in the head's
    pools."""
    for i in range(len(entries)):
        source = starts[entries[i], side] - offsets[i]
        for at in range(offsets[i], offsets[i + 1]):
            out_index[at] = index[source + at]
            out_counts[at] = counts[source + at]
