"""Numbers for distinct byte strings of records: the same bytes have the same number over many batches.

The key of a record is some numbers and the bytes of some of its fields. Keys are kept whole and compared byte
by byte: a program under watch must not be able to pass one path off as another by a collision of hashes.
About 60 ns an event with a path of 40 bytes (2026-11-28, 2 cores).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.compile import inline, kernel

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

EMPTY = -1
NUMBER_BYTES = 8
LENGTH_BYTES = 4


@inline
def _put(arena: U8, at: int, value: np.int64, size: int) -> None:
    for byte in range(size):
        arena[at + byte] = (value >> (8 * byte)) & 0xFF


@inline
def _word(arena: U8, at: int) -> np.uint64:
    """Eight bytes as a little-endian number."""
    value = np.uint64(0)
    for byte in range(8):
        value |= np.uint64(arena[at + byte]) << np.uint64(8 * byte)
    return value


@inline
def _equal(arena: U8, first: int, second: int, size: int) -> bool:
    """Whether two pieces of the same size hold the same bytes."""
    different = np.uint8(0)
    for byte in range(size):
        different |= arena[first + byte] ^ arena[second + byte]
    return bool(different == 0)


@kernel(
    "int64(Array(uint8, 1, 'C', True), int32[:,::1], int32[:,::1], int64[::1], int64[:,::1], uint64, "
    "uint8[::1], int64[::1], uint64[::1], int32[::1], int64, int32[::1])",
    group="watch",
)
def intern(
    data: U8,
    offsets: I32,
    lengths: I32,
    slots: I64,
    heads: I64,
    seed: int,
    arena: U8,
    starts: I64,
    hashes: U64,
    table: I32,
    count: int,
    numbers: I32,
) -> int:
    """Fill `numbers`, one a record; returns how many keys there are now, `count` being those before.

    `offsets` and `lengths` are (records, slots) as of `ring.split`; a length of -1 is a field that is absent,
    which differs from an empty one; `heads` are (records, numbers). `arena` holds keys one after the other,
    key i from `starts[i]` to `starts[i + 1]`; there must be room for all records' keys. `table` is a power of
    two of places with the number of a key or `EMPTY`, at most half full afterwards.
    """
    mask = len(table) - 1
    for row in range(len(numbers)):
        begin = starts[count]
        at = begin
        for place in range(heads.shape[1]):
            _put(arena, at, heads[row, place], NUMBER_BYTES)
            at += NUMBER_BYTES
        for place in range(len(slots)):
            slot = slots[place]
            length = np.int64(lengths[row, slot])
            source = np.int64(offsets[row, slot])
            if length < 0 or source < 0 or source + length > len(data):
                length = np.int64(-1)
            _put(arena, at, length, LENGTH_BYTES)
            at += LENGTH_BYTES
            for byte in range(length):
                arena[at + byte] = data[source + byte]
            if length > 0:
                at += length
        value = np.uint64(seed)
        byte = begin
        while byte + 8 <= at:
            value = (value ^ _word(arena, byte)) * np.uint64(0x9E3779B97F4A7C15)
            value ^= value >> np.uint64(32)
            byte += 8
        while byte < at:
            value = (value ^ np.uint64(arena[byte])) * np.uint64(0x9E3779B97F4A7C15)
            byte += 1
        value ^= value >> np.uint64(29)
        bucket = np.int64(value & np.uint64(mask))
        while True:
            number = np.int64(table[bucket])
            if number == EMPTY:
                table[bucket] = count
                hashes[count] = value
                starts[count + 1] = at
                numbers[row] = count
                count += 1
                break
            same = hashes[number] == value and starts[number + 1] - starts[number] == at - begin
            if same and _equal(arena, starts[number], begin, at - begin):
                numbers[row] = number
                break
            bucket = (bucket + 1) & mask
    return count
