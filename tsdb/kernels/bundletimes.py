"""Series and times of a bundle of the replay: which samples of its records follow each other.

Scrapes of a target name the same series in the same order again and again, and mostly give many of them the
same time. So the series of a list are numbered once, and series whose times are the same in all records of
their list share one column of times, which is read from the record's runs without a look at each sample.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.append import SLOT_MASK
from tsdb.kernels.bits import Word
from tsdb.kernels.compile import device, kernel
from tsdb.kernels.walcodec import take_varint

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]

# Columns of `parts` i64[P, 8], one row a record: which list of refs it has, samples, bytes of refs and times,
# of all keys, of coded values, and where keys and coded values begin (kernels.walscan).
LIST, COUNT, REFS_SIZE, TIMES_SIZE, KEYS_SIZE, CODED_SIZE, KEYS_AT, CODED_AT = range(8)
PART_WORDS = 8

# Columns of `runs` i64[S, 3], one row a series: where its codes (kernels.walruns) and its times begin, and
# how many they are.
CODES_AT, TIMES_AT, LENGTH = range(3)
RUN_WORDS = 3

_SLOT_MASK = np.uint32(SLOT_MASK)
_GENERATION_SHIFT = np.uint32(24)


@device
def plain_series(
    refs: U32Array, slots_used: int, alive: U8Array, generation: U8Array, seen: U8Array, slots: U32Array
) -> Word:
    """Slots of refs, if each is that of a living series and none comes twice: 0, else -1.

    `seen` u8[slots] is zeros before and after.
    """
    result = np.int64(0)
    done = np.int64(0)
    for i in range(len(refs)):
        slot = refs[i] & _SLOT_MASK
        young = np.uint8(refs[i] >> _GENERATION_SHIFT)
        if slot >= slots_used or alive[slot] == 0 or generation[slot] != young or seen[slot] != 0:
            result = np.int64(-1)
            break
        seen[slot] = 1
        slots[i] = slot
        done += 1
    for i in range(done):
        seen[slots[i]] = 0
    return result


@device
def _take_steps(data: U8Array, at: Word, end: Word, before: Word, run: Word) -> tuple[Word, Word, Word, Word]:
    """The next difference of the times of a record, how often it comes, the position (-1 for bad bytes), and
    whether the next one may repeat it."""
    difference, at = take_varint(data, at, end)
    if at >= 0 and run > 0 and difference == before:
        more, at = take_varint(data, at, end)
        if more < 0:
            at = np.int64(-1)
        return difference, 1 + more, at, np.int64(0)
    return difference, np.int64(1), at, np.int64(1)


@device
def _mark_steps(keys: U8Array, at: Word, end: Word, count: Word, marks: U8Array, begin: Word) -> Word:
    """Mark the samples of a record whose time is another than that of the one before; -1 for bad bytes."""
    done = np.int64(0)
    step, run = np.int64(0), np.int64(0)
    while done < count:
        step, times, at, run = _take_steps(keys, at, end, step, run)
        if at < 0:
            return np.int64(-1)
        times = min(times, count - done)
        if step != 0:
            for j in range(done, done + times):
                marks[begin + j] = 1
        done += times
    return np.int64(0)


@device
def _read_columns(
    keys: U8Array,
    at: Word,
    end: Word,
    marks: U8Array,
    begin: Word,
    stop: Word,
    runs: I64Array,
    record: Word,
    t_ms: I64Array,
) -> None:
    """Times of a record, which `_mark_steps` has tested, to the columns of its list."""
    done = begin
    step, run = np.int64(0), np.int64(0)
    t = np.uint64(0)
    while done < stop:
        step, times, at, run = _take_steps(keys, at, end, step, run)
        times = min(times, stop - done)
        for j in range(done, done + times):
            t += np.uint64(step)
            if marks[j] != 0:
                t_ms[runs[j, TIMES_AT] + record] = np.int64(t)
        done += times


@device
def take_times(
    keys: U8Array,
    parts: I64Array,
    ends: I64Array,
    records: I64Array,
    marks: U8Array,
    runs: I64Array,
    t_ms: I64Array,
) -> Word:
    """Lay out the runs of a bundle's series, which are those of lists side by side, and read their times.

    `keys` are those of the records in `parts` side by side. List k has the series up to `ends[k]` i64[K], all
    different. `records` i64[K] and `marks` u8[S] are scratch. Fills `runs` i64[S, 3] but
    for the codes: times one run after the other, but series of a list with the same times share theirs.
    `t_ms` holds as many as there are samples. Returns how many times there are, or -1 for bytes that do not
    decode.
    """
    for k in range(len(ends)):
        records[k] = 0
    for i in range(len(marks)):
        marks[i] = 0
    at = np.int64(0)
    for p in range(len(parts)):
        k = parts[p, LIST]
        records[k] += 1
        times = at + parts[p, REFS_SIZE]
        end = times + parts[p, TIMES_SIZE]
        at += parts[p, KEYS_SIZE]
        begin = ends[k - 1] if k > 0 else np.int64(0)
        if end > at or at > len(keys) or parts[p, COUNT] != ends[k] - begin:
            return np.int64(-1)
        if _mark_steps(keys, times, end, parts[p, COUNT], marks, begin) < 0:
            return np.int64(-1)
    used = np.int64(0)
    begin = np.int64(0)
    for k in range(len(ends)):
        if begin < ends[k]:
            marks[begin] = 1
        for i in range(begin, ends[k]):
            if marks[i] != 0:
                used += records[k]
            runs[i, TIMES_AT] = used - records[k]
            runs[i, LENGTH] = records[k]
        begin = ends[k]
        records[k] = 0
    at = np.int64(0)
    for p in range(len(parts)):
        k = parts[p, LIST]
        times = at + parts[p, REFS_SIZE]
        end = times + parts[p, TIMES_SIZE]
        at += parts[p, KEYS_SIZE]
        begin = ends[k - 1] if k > 0 else np.int64(0)
        _read_columns(keys, times, end, marks, begin, ends[k], runs, records[k], t_ms)
        records[k] += 1
    return used


@kernel(
    "int64(uint8[::1], int64[:,::1], int64[::1], int64[::1], uint8[::1], int64[:,::1], int64[::1])",
    group="write",
)
def read_times(
    keys: U8Array,
    parts: I64Array,
    ends: I64Array,
    records: I64Array,
    marks: U8Array,
    runs: I64Array,
    t_ms: I64Array,
) -> Word:
    """`take_times` alone."""
    return take_times(keys, parts, ends, records, marks, runs, t_ms)
