"""Read series of the head: measure, capture under the head's lock, decode without it.

`capture` copies what may still change (open chunks, tails, chains of late samples) and notes where the sealed
chunks are; sealed bytes never change. `decode_rows` then gives CSR columns of one run of rows, each timestamp
once: of equal ones the in-order sample wins, then the late sample that came first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.append import (
    CHAINS,
    CHUNK,
    ENCODED_T,
    LAST_T,
    LATE_PREVIOUS,
    LATE_T,
    LATE_V,
    META,
    SEALED_LINK,
    SEALED_MINT,
    SEALED_PLACE,
    SLAB_BYTES,
    SLAB_SHIFT,
    SLABS,
    SPANS,
    TAIL_BASE,
    TAIL_MASK,
    TAIL_VALUES,
    sealed_position,
    tail_time,
)
from tsdb.kernels.bits import Word, load64, store64
from tsdb.kernels.codedchunk import CODED, decode_coded_chunk
from tsdb.kernels.compile import device, inline, kernel
from tsdb.kernels.xor import decode_xor_chunk

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
U64Array = npt.NDArray[np.uint64]

OPEN_CHUNK = 1 << 62
"""Added to the position of a captured open chunk: the rest is an offset into the captured bytes."""

_OPEN_CHUNK = np.int64(OPEN_CHUNK)
_U3, _U7 = np.uint64(3), np.uint64(7)
_U32 = np.uint64(32)
_U40 = np.uint64(40)
_U56 = np.uint64(56)
_LOW32 = np.uint64(0xFFFFFFFF)
_LOW16 = np.uint64(0xFFFF)
_LOW8 = np.uint64(0xFF)
_ZERO = np.uint64(0)
_TAIL_MASK = np.uint64(TAIL_MASK)


@inline
def _tail_length(row: U64Array, mint: Word, maxt: Word) -> Word:
    """Samples of a tail that may lie in [mint, maxt]: all or none."""
    if np.int64(row[LAST_T]) < mint or np.int64(row[TAIL_BASE]) > maxt:
        return np.int64(0)
    return np.int64(row[META] & _TAIL_MASK)


@inline
def _open_wanted(row: U64Array, mint: Word, maxt: Word) -> Word:
    """Whether the open chunk may have samples in [mint, maxt]."""
    count = (row[CHUNK] >> _U32) & _LOW8
    begun = np.int64(row[ENCODED_T] - (row[SPANS] >> _U32))
    return count > _ZERO and begun <= maxt and np.int64(row[ENCODED_T]) >= mint


@kernel(
    "int64(uint32[::1], int64, int64, boolean, uint64[:,::1], uint64[:,::1], uint64[:,::1], int64[:,::1],"
    " int64[::1])",
    group="read",
)
def measure(
    slots: U32Array,
    mint: int,
    maxt: int,
    latest: bool,
    rows: U64Array,
    sealed: U64Array,
    late: U64Array,
    offsets: I64Array,
    bounds: I64Array,
) -> int:
    """Upper bounds of each row: in `bounds` i64[R] samples, in `offsets` i64[3, R+1], added up, chunks, bytes
    of open chunks, and loose samples. Returns how many rows have any.

    Loose samples are those of the tail and the late chain. With `latest` only the last sample of each row is
    wanted: of tail, open chunk and sealed chunks the newest that begins by maxt has it, and is counted alone.
    """
    offsets[:, 0] = 0
    filled = 0
    for i in range(len(slots)):
        row = rows[slots[i]]
        chunks: Word = 0
        open_bytes: Word = 0
        samples: Word = 0
        loose: Word = _tail_length(row, mint, maxt)
        done = latest and loose > 0
        if not done and _open_wanted(row, mint, maxt):
            chunks += 1
            open_bytes = np.int64(((row[CHUNK] & _LOW32) + _U7) >> _U3)
            samples += np.int64((row[CHUNK] >> _U32) & _LOW8)
            done = latest
        at = row[CHAINS] & _LOW32
        while at != _ZERO and not done:
            first = np.int64(sealed[at, SEALED_MINT])
            last = first + np.int64(sealed[at, SEALED_LINK] & _LOW32)
            if last < mint:
                break
            if first <= maxt:
                chunks += 1
                samples += np.int64(sealed[at, SEALED_PLACE] >> _U56)
                done = latest
            at = sealed[at, SEALED_LINK] >> _U32
        at = row[CHAINS] >> _U32
        while at != _ZERO:
            t = np.int64(late[at, LATE_T])
            if mint <= t <= maxt:
                loose += 1
            at = late[at, LATE_PREVIOUS]
        samples += loose
        offsets[0, i + 1] = offsets[0, i] + chunks
        offsets[1, i + 1] = offsets[1, i] + open_bytes
        offsets[2, i + 1] = offsets[2, i] + loose
        bounds[i] = samples
        filled += samples > 0
    return filled


@inline
def _copy_bytes(source: U8Array, start: Word, length: Word, out: U8Array, at: Word) -> None:
    """source[start:start+length] to out[at:], a word at a time; nothing beyond is read or written."""
    j: Word = 0
    while j + 8 <= length:
        store64(out, at + j, load64(source, start + j))
        j += 8
    while j < length:
        out[at + j] = source[start + j]
        j += 1


@device
def _copy_open(row: U64Array, slabs: U8Array, slab_next: U32Array, out: U8Array, at: Word) -> Word:
    """Copy the open chunk of a series to `out[at:]`, its count filled in; return its length."""
    size = np.int64(((row[CHUNK] & _LOW32) + _U7) >> _U3)
    slab = row[SLABS] & _LOW32
    done = 0
    while done < size:
        base = np.int64(slab) << SLAB_SHIFT
        _copy_bytes(slabs, base, min(SLAB_BYTES, size - done), out, at + done)
        done += SLAB_BYTES
        slab = np.uint64(slab_next[slab])
    out[at] = np.uint8(0)
    out[at + 1] = np.uint8((row[CHUNK] >> _U32) & _LOW8)
    return size


@kernel(
    "void(uint32[::1], int64, int64, uint64[:,::1], uint64[:,::1], int64, uint64[:,::1],"
    " uint8[::1], uint32[::1], int64[::1], int64[::1], int64[::1], int64[:,::1], uint8[::1],"
    " int64[::1], int64[::1], uint64[::1])",
    group="read",
)
def capture(
    slots: U32Array,
    mint: int,
    maxt: int,
    rows: U64Array,
    sealed: U64Array,
    sealed_end: int,
    late: U64Array,
    slabs: U8Array,
    slab_next: U32Array,
    chunk_offsets: I64Array,
    byte_offsets: I64Array,
    loose_offsets: I64Array,
    chunks: I64Array,
    open_bytes: U8Array,
    tail_counts: I64Array,
    loose_t: I64Array,
    loose_v: U64Array,
) -> None:
    """Copy rows whose bounds `measure` gave, within one hold of the head's lock.

    `sealed_end` is the position after the newest sealed chunk.
    `chunks` i64[C, 2] gets position and length of each chunk, oldest first; `loose_t`, `loose_v` the tail
    (`tail_counts[i]` samples, ascending), then the late samples, newest arrival first.
    """
    for i in range(len(slots)):
        row = rows[slots[i]]
        at_chunk = chunk_offsets[i + 1]
        # `measure` found no room wanted for chunks that do not count.
        if at_chunk > chunk_offsets[i] and byte_offsets[i + 1] > byte_offsets[i]:
            at_chunk -= 1
            chunks[at_chunk, 0] = _OPEN_CHUNK + byte_offsets[i]
            chunks[at_chunk, 1] = _copy_open(row, slabs, slab_next, open_bytes, byte_offsets[i])
        at = row[CHAINS] & _LOW32
        while at != _ZERO and at_chunk > chunk_offsets[i]:
            first = np.int64(sealed[at, SEALED_MINT])
            if first <= maxt:
                at_chunk -= 1
                chunks[at_chunk, 0] = sealed_position(sealed[at, SEALED_PLACE], sealed_end)
                chunks[at_chunk, 1] = np.int64((sealed[at, SEALED_PLACE] >> _U40) & _LOW16)
            at = sealed[at, SEALED_LINK] >> _U32
        length = _tail_length(row, mint, maxt)
        out = loose_offsets[i]
        for k in range(length):
            loose_t[out + k] = tail_time(row, k)
            loose_v[out + k] = row[TAIL_VALUES + k]
        tail_counts[i] = length
        out += length
        at = row[CHAINS] >> _U32
        while at != _ZERO:
            t = np.int64(late[at, LATE_T])
            if mint <= t <= maxt:
                loose_t[out] = t
                loose_v[out] = late[at, LATE_V]
                out += 1
            at = late[at, LATE_PREVIOUS]


@kernel("void(int64[:,::1], int64[::1], int64[::1], int64[::1])", group="read")
def place_chunks(chunks: I64Array, starts: I64Array, lengths: I64Array, found: I64Array) -> None:
    """Where chunks (position, length) begin in bytes of their own, one after the other, and their lengths.

    Where all are open ones, which were captured, they begin where they lie in the captured bytes. `found`
    i64[3] gets the bytes of all, and the position of the first and the last that is not open, -1 for none.
    """
    total: Word = 0
    first, last = _OPEN_CHUNK, np.int64(-1)
    for i in range(len(starts)):
        starts[i] = total
        lengths[i] = chunks[i, 1]
        total += chunks[i, 1]
        if chunks[i, 0] < _OPEN_CHUNK:
            first, last = min(first, chunks[i, 0]), max(last, chunks[i, 0])
    if last < 0:
        for i in range(len(starts)):
            starts[i] = chunks[i, 0] - _OPEN_CHUNK
    found[0], found[1], found[2] = total, first, last


@kernel(
    "void(Array(uint8, 1, 'C', True), Array(int64, 2, 'C', True), int64[::1], int64, int64, uint8[::1])",
    group="read",
)
def gather_bytes(
    source: U8Array, chunks: I64Array, targets: I64Array, origin: int, end: int, out: U8Array
) -> None:
    """Copy the chunks (position, length) that lie from `origin`, where `source` begins, to `end` to their
    places of `out`; others are left to other sources."""
    for i in range(len(targets)):
        if origin <= chunks[i, 0] < end:
            _copy_bytes(source, chunks[i, 0] - origin, chunks[i, 1], out, targets[i])


@device
def _sort_late(t_ms: I64Array, values: U64Array, lo: Word, hi: Word) -> None:
    """Turn a run around (newest arrival first becomes last) and sort it by time, stable."""
    left, right = lo, hi - 1
    while left < right:
        t_ms[left], t_ms[right] = t_ms[right], t_ms[left]
        values[left], values[right] = values[right], values[left]
        left += 1
        right -= 1
    for i in range(lo + 1, hi):
        t, value = t_ms[i], values[i]
        j = i
        while j > lo and t_ms[j - 1] > t:
            t_ms[j] = t_ms[j - 1]
            values[j] = values[j - 1]
            j -= 1
        t_ms[j] = t
        values[j] = value


@kernel("void(int64[::1], int64[::1], int64[::1], uint64[::1])", group="read")
def sort_late_rows(
    loose_offsets: I64Array, tail_counts: I64Array, loose_t: I64Array, loose_v: U64Array
) -> None:
    """Bring the late samples of captured rows into ascending order, first arrival first; once a capture."""
    for row in range(len(tail_counts)):
        begin = loose_offsets[row] + tail_counts[row]
        if loose_offsets[row + 1] - begin > 1:
            _sort_late(loose_t, loose_v, begin, loose_offsets[row + 1])


@device
def _merge_late(
    out_t: I64Array,
    out_v: U64Array,
    lo: Word,
    hi: Word,
    t_ms: I64Array,
    values: U64Array,
    used: U8Array,
    a: Word,
    b: Word,
) -> Word:
    """Merge the sorted late run [a, b) into the row [lo, hi), from the back; return the row's new end."""
    total = hi
    for i in range(a, b):
        if i > a and t_ms[i] == t_ms[i - 1]:
            continue
        left, right = lo, hi
        while left < right:
            middle = (left + right) >> 1
            if out_t[middle] < t_ms[i]:
                left = middle + 1
            else:
                right = middle
        if left == hi or out_t[left] != t_ms[i]:
            total += 1
    write = total - 1
    i = hi - 1
    j = b - 1
    while j >= a:
        if (j > a and t_ms[j] == t_ms[j - 1]) or (i >= lo and out_t[i] == t_ms[j]):
            j -= 1
        elif i >= lo and out_t[i] > t_ms[j]:
            out_t[write] = out_t[i]
            out_v[write] = out_v[i]
            write -= 1
            i -= 1
        else:
            out_t[write] = t_ms[j]
            out_v[write] = values[j]
            if len(used):
                used[j] = 1
            write -= 1
            j -= 1
    return total


@kernel(
    "int64(int64[::1], int64[::1], int64[::1], uint8[::1], int64[::1], int64[::1], int64[::1], uint64[::1],"
    " uint8[::1], int64, int64, int64, int64, int64[::1], int64[::1], uint64[::1])",
    group="read",
)
def decode_rows(
    chunk_offsets: I64Array,
    chunk_starts: I64Array,
    chunk_lengths: I64Array,
    buffer: U8Array,
    loose_offsets: I64Array,
    tail_counts: I64Array,
    loose_t: I64Array,
    loose_v: U64Array,
    late_used: U8Array,
    lo: int,
    hi: int,
    mint: int,
    maxt: int,
    out_offsets: I64Array,
    out_t: I64Array,
    out_v: U64Array,
) -> Word:
    """Decode captured rows lo to hi: chunks, tail, late samples, each timestamp once, within [mint, maxt].

    `chunk_starts` and `chunk_lengths` are those of the run's first chunk on. `late_used` (empty if not
    wanted) gets 1 for each loose sample of a late chain that is in the output. Returns the number of samples
    or -1 - i for the damaged chunk i of the run.
    """
    out = np.int64(0)
    out_offsets[0] = 0
    base = chunk_offsets[lo]
    for row in range(lo, hi):
        begin = out
        for c in range(chunk_offsets[row] - base, chunk_offsets[row + 1] - base):
            start, length = chunk_starts[c], chunk_lengths[c]
            if buffer[start] == CODED:
                out = decode_coded_chunk(buffer, start, length, mint, maxt, out_t, out_v, out)
            else:
                out = decode_xor_chunk(buffer, start, length, mint, maxt, out_t, out_v, out)
            if out < 0:
                return np.int64(-1 - c)
        tail_end = loose_offsets[row] + tail_counts[row]
        for k in range(loose_offsets[row], tail_end):
            if mint <= loose_t[k] <= maxt:
                out_t[out] = loose_t[k]
                out_v[out] = loose_v[k]
                out += 1
        late_end = loose_offsets[row + 1]
        if late_end > tail_end:
            out = _merge_late(out_t, out_v, begin, out, loose_t, loose_v, late_used, tail_end, late_end)
        out_offsets[row - lo + 1] = out
    return out
