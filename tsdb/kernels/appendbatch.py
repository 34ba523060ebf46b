"""The usual append in one step without the GIL: judge, code for the log, store.

Each step by itself is a kernel too (kernels.append, kernels.walcodec); a batch with anything unusual is left
to those. One call instead of three means one release of the GIL a request, which is what others wait for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.admit import admit_all
from tsdb.kernels.append import ACCEPTED, REPEATED, store_all
from tsdb.kernels.compile import kernel
from tsdb.kernels.walcodec import encode_all

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

# Entries of `outcome` i64[6]: bytes of refs, times and values for the log, samples accepted, samples that
# `store_all` looked at, newest time of the batch.
REFS_SIZE, TIMES_SIZE, CODED_SIZE, LOGGED, STORED, NEWEST_T = range(6)
OUTCOME_WORDS = 6
UNUSUAL = -1
"""In STORED: the batch has samples that are refused or late, and was only judged."""


@kernel(
    "void(uint32[::1], int64[::1], uint64[::1], uint8[::1], uint64[:,::1], uint8[::1], uint8[::1],"
    " int64[::1], int64, uint8[::1], uint8[::1], int64[::1], uint64[:,::1], uint8[::1],"
    " uint32[::1], uint32[::1], uint64[:,::1], uint8[::1], uint64[:,::1], int64[::1], uint8[::1])",
    group="write",
)
def append_batch(
    refs: U32Array,
    t_ms: I64Array,
    values: U64Array,
    codes: U8Array,
    undo: U64Array,
    alive: U8Array,
    generation: U8Array,
    rules: I64Array,
    segment: int,
    keys: U8Array,
    coded: U8Array,
    outcome: I64Array,
    rows: U64Array,
    slabs: U8Array,
    slab_next: U32Array,
    slab_free: U32Array,
    sealed: U64Array,
    chunk_segment: U8Array,
    late: U64Array,
    counters: I64Array,
    scratch: U8Array,
) -> None:
    """Judge a batch as `admit` does; if all is accepted, or repeated, code it as `encode_samples` does and
    store as much of it as `store` can."""
    admit_all(refs, t_ms, values, alive, generation, rows, rules, codes, undo)
    outcome[STORED] = UNUSUAL
    newest = t_ms[0]
    for i in range(len(refs)):
        if codes[i] != ACCEPTED and codes[i] != REPEATED:
            return
        newest = max(newest, t_ms[i])
    outcome[NEWEST_T] = newest
    outcome[LOGGED] = encode_all(
        refs, t_ms, values, codes, ACCEPTED, segment, undo, rows, keys, coded, outcome
    )
    outcome[STORED] = store_all(
        refs,
        t_ms,
        values,
        codes,
        0,
        rows,
        slabs,
        slab_next,
        slab_free,
        sealed,
        chunk_segment,
        late,
        counters,
        scratch,
    )
