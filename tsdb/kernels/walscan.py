"""Records of a WAL segment, found and checked many at a time, so that reading a log costs Python next to
nothing (docs/formats/wal.md has the format).

Only what is right is taken: at the first byte that is not as it should be the caller looks again with
`tsdb.wal.read_batches`, which knows the words for what is wrong.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.bits import Word, load32, load64, store64
from tsdb.kernels.bundletimes import (
    CODED_AT,
    CODED_SIZE,
    COUNT,
    KEYS_AT,
    KEYS_SIZE,
    LIST,
    REFS_SIZE,
    TIMES_SIZE,
)
from tsdb.kernels.compile import device, inline, kernel
from tsdb.kernels.hashing import hash_region

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]

# Columns of `records` i64[R, 5], and the row of `parts` of the same number (kernels.bundletimes) for samples.
KIND, FLAGS, SEQUENCE, PAYLOAD_AT, PAYLOAD_SIZE = range(5)
RECORD_WORDS = 5
NOT_READ = -1
"""COUNT of a row whose record is no plain record of samples: it may be packed, or not decode at all."""

HEADER_BYTES = 20
SAMPLES_KIND, CONTINUES, COMPRESSED = 2, 1, 2
SAMPLES_HEADER_BYTES = 16
SAMPLES_LIMIT = 1 << 26
"""As walrecords.SAMPLES_PER_RECORD_LIMIT."""
TABLES = 16

_U1, _BYTE = np.uint64(1), np.uint64(0xFF)
_LOW32 = np.uint64(0xFFFFFFFF)


def checksum_tables() -> U32Array:
    """u32[16, 256] for `scan_records`: what a byte makes of a crc32c when 0 to 15 bytes follow it."""
    first = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        first = (first >> np.uint32(1)) ^ np.where(first & np.uint32(1), np.uint32(0x82F63B78), np.uint32(0))
    tables = [first]
    for _ in range(TABLES - 1):
        before = tables[-1]
        tables.append((before >> np.uint32(8)) ^ first[before & np.uint32(0xFF)])
    return np.stack(tables)


@inline
def _four(tables: U32Array, row: Word, word: Word, shift: Word) -> Word:
    """The checksum of four bytes of a word behind which `row` bytes follow."""
    return (
        tables[row + 3, (word >> shift) & _BYTE]
        ^ tables[row + 2, (word >> (shift + np.uint64(8))) & _BYTE]
        ^ tables[row + 1, (word >> (shift + np.uint64(16))) & _BYTE]
        ^ tables[row, (word >> (shift + np.uint64(24))) & _BYTE]
    )


@device
def _checksum(data: U8Array, start: Word, end: Word, tables: U32Array) -> Word:
    """crc32c of `data[start:end]`."""
    crc = _LOW32
    at = start
    while at + 16 <= end:
        low = load64(data, at) ^ crc
        high = load64(data, at + 8)
        near = _four(tables, 12, low, np.uint64(0)) ^ _four(tables, 8, low, np.uint64(32))
        far = _four(tables, 4, high, np.uint64(0)) ^ _four(tables, 0, high, np.uint64(32))
        crc = np.uint64(near ^ far)
        at += 16
    while at < end:
        crc = np.uint64(tables[0, (crc ^ np.uint64(data[at])) & _BYTE]) ^ (crc >> np.uint64(8))
        at += 1
    return crc ^ _LOW32


@device
def _read_part(data: U8Array, at: Word, size: Word, part: I64Array) -> None:
    """A record of samples as a row of `parts`; COUNT is NOT_READ where it is not a plain one."""
    part[COUNT] = NOT_READ
    if size < SAMPLES_HEADER_BYTES:
        return
    count, refs_size = np.int64(load32(data, at)), np.int64(load32(data, at + 4))
    times_size, packed = np.int64(load32(data, at + 8)), np.int64(load32(data, at + 12))
    keys_size = refs_size + times_size
    if packed != 0 or count > SAMPLES_LIMIT or SAMPLES_HEADER_BYTES + keys_size > size:
        return
    part[LIST], part[COUNT] = 0, count
    part[REFS_SIZE], part[TIMES_SIZE], part[KEYS_SIZE] = refs_size, times_size, keys_size
    part[CODED_SIZE] = size - SAMPLES_HEADER_BYTES - keys_size
    part[KEYS_AT] = at + SAMPLES_HEADER_BYTES
    part[CODED_AT] = at + SAMPLES_HEADER_BYTES + keys_size


@kernel(
    "int64(Array(uint8, 1, 'C', True), int64[::1], uint32[:,::1], int64[:,::1], int64[:,::1])",
    group="write",
)
def scan_records(
    data: U8Array, progress: I64Array, tables: U32Array, records: I64Array, parts: I64Array
) -> Word:
    """Take records from position `progress[0]` on that follow number `progress[1]` (0 for any) and are as
    they were written, as many whole batches as fit in `records` i64[R, 5].

    Moves `progress` behind the last one. Returns how many records there are; 0 at the end of the data, at
    damage, and for a batch that does not fit.
    """
    at, sequence = progress[0], progress[1]
    found, whole = np.int64(0), np.int64(0)
    while found < len(records) and at + HEADER_BYTES <= len(data):
        payload = at + HEADER_BYTES
        size = np.int64(load32(data, at))
        end = payload + size
        if end > len(data):
            break
        number = np.int64(load64(data, at + 8))
        if number < 0 or (sequence != 0 and number != sequence + 1):
            break
        if _checksum(data, at + 8, end, tables) != np.uint64(load32(data, at + 4)):
            break
        record = records[found]
        record[KIND], record[FLAGS], record[SEQUENCE] = data[at + 16], data[at + 17], number
        record[PAYLOAD_AT], record[PAYLOAD_SIZE] = payload, size
        if record[KIND] == SAMPLES_KIND and record[FLAGS] & COMPRESSED == 0:
            _read_part(data, payload, size, parts[found])
        else:
            parts[found, COUNT] = NOT_READ
        found += 1
        sequence = number
        padding = np.int64(data[at + 18]) | (np.int64(data[at + 19]) << 8)
        at = min(end + padding, np.int64(len(data)))
        if record[FLAGS] & CONTINUES == 0:
            whole = found
            progress[0], progress[1] = at, sequence
    return whole


@inline
def _same(first: U8Array, i: Word, second: U8Array, j: Word, size: Word) -> Word:
    """Whether two regions have the same bytes."""
    n = np.int64(0)
    while n < size and first[i + n] == second[j + n]:
        n += 1
    return n == size


@kernel(
    "int64(Array(uint8, 1, 'C', True), Array(uint8, 1, 'C', True), int64[:,::1], uint64, uint64, int64[::1],"
    " int64[::1])",
    group="write",
)
def number_lists(
    data: U8Array,
    extra: U8Array,
    parts: I64Array,
    seed0: Word,
    seed1: Word,
    table: I64Array,
    firsts: I64Array,
) -> Word:
    """Give records that spell their refs with the same bytes the same number in LIST, from 0 in their order.

    Positions below 0 are those of `extra`, `~position`. `table` i64[power of two, at least twice as many] is
    scratch; `firsts` i64[P] gets the first record of each list. Returns the number of lists.
    """
    for i in range(len(table)):
        table[i] = -1
    mask = np.uint64(len(table) - 1)
    count = np.int64(0)
    for p in range(len(parts)):
        at, size = parts[p, KEYS_AT], parts[p, REFS_SIZE]
        own = data if at >= 0 else extra
        at = at if at >= 0 else ~at
        hashed, _ = hash_region(own, at, at + size, seed0, seed1)
        place = hashed & mask
        while True:
            known = table[place]
            if known < 0:
                table[place] = count
                firsts[count] = p
                parts[p, LIST] = count
                count += 1
                break
            first = firsts[known]
            begin = parts[first, KEYS_AT]
            others = data if begin >= 0 else extra
            begin = begin if begin >= 0 else ~begin
            if parts[first, REFS_SIZE] == size and _same(own, at, others, begin, size):
                parts[p, LIST] = known
                break
            place = (place + _U1) & mask
    return count


@device
def _copy(source: U8Array, at: Word, size: Word, out: U8Array, to: Word) -> None:
    done = np.int64(0)
    while done + 8 <= size:
        store64(out, to + done, load64(source, at + done))
        done += 8
    while done < size:
        out[to + done] = source[at + done]
        done += 1


@device
def bring_parts(data: U8Array, extra: U8Array, parts: I64Array, keys: U8Array, coded: U8Array) -> None:
    """Copy keys and coded values of records side by side, each as long as all of them."""
    key_at, coded_at = np.int64(0), np.int64(0)
    for p in range(len(parts)):
        at, size = parts[p, KEYS_AT], parts[p, KEYS_SIZE]
        if at >= 0:
            _copy(data, at, size, keys, key_at)
        else:
            _copy(extra, ~at, size, keys, key_at)
        key_at += size
        at, size = parts[p, CODED_AT], parts[p, CODED_SIZE]
        if at >= 0:
            _copy(data, at, size, coded, coded_at)
        else:
            _copy(extra, ~at, size, coded, coded_at)
        coded_at += size


@kernel(
    "void(Array(uint8, 1, 'C', True), Array(uint8, 1, 'C', True), int64[:,::1], uint8[::1], uint8[::1])",
    group="write",
)
def gather_parts(data: U8Array, extra: U8Array, parts: I64Array, keys: U8Array, coded: U8Array) -> None:
    """`bring_parts` alone."""
    bring_parts(data, extra, parts, keys, coded)
