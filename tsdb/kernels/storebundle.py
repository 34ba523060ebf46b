"""A bundle of the replay from bytes of the log to chunks, in one call.

While a server starts, other threads import and install labels, and whoever comes out of a kernel waits for
them to let Python go: half a millisecond, as long as half a bundle takes. So a bundle leaves the interpreter
once, not for each of its steps.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.append import BLOCK_RANGE
from tsdb.kernels.bits import Word
from tsdb.kernels.bundletimes import CODED_SIZE, KEYS_SIZE, plain_series, take_times
from tsdb.kernels.compile import device, kernel
from tsdb.kernels.runchunks import store_runs
from tsdb.kernels.walruns import CODED_PADDING, part_runs
from tsdb.kernels.walscan import bring_parts
from tsdb.kernels.xor import CHUNK_SAMPLES

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

UNDECODABLE, NOT_PLAIN, IN_PIECES = -1, -2, -3
"""What `store_bundle` returns in place of a number of chunks."""
# Words of `outcome` i64[2]: samples that are stored, and the newest time of the bundle.
STORED_COUNT, NEWEST_T = range(2)


@device
def _is_one_piece(records: I64Array, t_ms: I64Array, times: Word, block_range_ms: Word) -> bool:
    """Whether no list has more records than a chunk has samples, and all times are of one block range."""
    for k in range(len(records)):
        if records[k] > CHUNK_SAMPLES:
            return False
    if times == 0:
        return True
    least, most = t_ms[0], t_ms[0]
    for i in range(1, times):
        least, most = min(least, t_ms[i]), max(most, t_ms[i])
    return bool(least // block_range_ms == most // block_range_ms)


@kernel(
    "int64(Array(uint8, 1, 'C', True), Array(uint8, 1, 'C', True), int64[:,::1], uint32[::1],"
    " int64[::1], int64, int64, int64, int64, int64, uint8[::1], uint8[::1], uint8[::1], uint64[:,::1],"
    " uint8[::1], uint32[::1], uint8[::1], uint8[::1], int64[::1], uint8[::1], uint32[::1],"
    " int64[:,::1], int64[::1], uint64[:,::1], int64[::1], int64[::1], uint64[::1], int64[::1],"
    " uint64[::1], uint64[::1], uint8[::1], uint64[:,::1], int64[::1], int64[::1])",
    group="write",
)
def store_bundle(
    data: U8Array,
    extra: U8Array,
    parts: I64Array,
    refs: U32Array,
    ends: I64Array,
    is_piece: int,
    segment: int,
    coded_samples: int,
    oldest: int,
    slots_used: int,
    alive: U8Array,
    generation: U8Array,
    seen: U8Array,
    rows: U64Array,
    slabs: U8Array,
    slab_next: U32Array,
    keys: U8Array,
    coded: U8Array,
    records: I64Array,
    marks: U8Array,
    slots: U32Array,
    runs: I64Array,
    t_ms: I64Array,
    states: U64Array,
    long: I64Array,
    kept_t: I64Array,
    values: U64Array,
    tail_t: I64Array,
    tail_v: U64Array,
    pen: U64Array,
    out: U8Array,
    chunks: U64Array,
    counters: I64Array,
    outcome: I64Array,
) -> Word:
    """Make chunks of the records in `parts` (kernels.bundletimes), whose bytes are in `data` and `extra`.

    List k of their series is the part of `refs` up to `ends[k]` i64[K]. Nothing is touched, and the answer is
    NOT_PLAIN, unless all are refs of living series, each once; IN_PIECES, unless the records are a piece
    (`is_piece`) already, where a list has more records than a chunk has samples or they cross a block range;
    UNDECODABLE for bits that do not decode. Otherwise the number of `chunks`, for `placechunks.place_chunks`.
    What `runchunks.store_runs` and `walruns.part_runs` say of the rows, scratch and `counters` goes for these
    too. Scratch beside theirs: `keys` and `coded` for the bytes of all records and `CODED_PADDING` more,
    `records` i64[K], `marks` u8[S], `slots` u32[S], `runs` i64[S, 3], `t_ms` for a time of each sample.
    """
    if plain_series(refs, slots_used, alive, generation, seen, slots) < 0:
        return np.int64(NOT_PLAIN)
    bring_parts(data, extra, parts, keys, coded)
    key_bytes, coded_bytes = np.int64(0), np.int64(0)
    for p in range(len(parts)):
        key_bytes += parts[p, KEYS_SIZE]
        coded_bytes += parts[p, CODED_SIZE]
    for i in range(coded_bytes, coded_bytes + CODED_PADDING):
        coded[i] = 0
    times = take_times(keys[:key_bytes], parts, ends, records, marks, runs, t_ms)
    if times < 0:
        return np.int64(UNDECODABLE)
    if is_piece == 0 and not _is_one_piece(records, t_ms, times, counters[BLOCK_RANGE]):
        return np.int64(IN_PIECES)
    for i in range(times):
        outcome[NEWEST_T] = max(outcome[NEWEST_T], t_ms[i])
    taken = part_runs(coded, parts, ends, slots, runs, t_ms, segment, states, rows, long, out)
    if taken < 0:
        return np.int64(UNDECODABLE)
    return store_runs(
        slots,
        runs,
        t_ms,
        states,
        taken,
        coded_samples,
        oldest,
        rows,
        slabs,
        slab_next,
        kept_t,
        values,
        tail_t,
        tail_v,
        pen,
        out,
        chunks,
        counters,
    )
