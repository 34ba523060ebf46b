"""xxHash64 of label sets over Prometheus's byte layout: limit_ratio must choose the same series everywhere.

A row hashes the concatenation, over its labels in order, of length and bytes of name and value; a length
below 255 is one byte, otherwise 0xFF and three bytes, low first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.compile import inline, kernel

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)
_C64 = np.uint64(64)


@inline
def _rotate(x: np.uint64, bits: np.uint64) -> np.uint64:
    return (x << bits) | (x >> (_C64 - bits))


@inline
def _word(data: U8, at: int, count: int) -> np.uint64:
    """`count` bytes, low first."""
    out = np.uint64(0)
    for i in range(count):
        out |= np.uint64(data[at + i]) << np.uint64(8 * i)
    return out


@inline
def _round(acc: np.uint64, word: np.uint64) -> np.uint64:
    return _rotate(acc + word * _P2, np.uint64(31)) * _P1


@inline
def xxhash64(data: U8, length: int) -> np.uint64:
    """xxHash64 with seed 0 of the first `length` bytes."""
    at = 0
    if length >= 32:
        v1, v2, v3, v4 = _P1 + _P2, _P2, np.uint64(0), np.uint64(0) - _P1
        while at + 32 <= length:
            v1 = _round(v1, _word(data, at, 8))
            v2 = _round(v2, _word(data, at + 8, 8))
            v3 = _round(v3, _word(data, at + 16, 8))
            v4 = _round(v4, _word(data, at + 24, 8))
            at += 32
        acc = _rotate(v1, np.uint64(1)) + _rotate(v2, np.uint64(7))
        acc += _rotate(v3, np.uint64(12)) + _rotate(v4, np.uint64(18))
        for v in (v1, v2, v3, v4):
            acc = (acc ^ _round(np.uint64(0), v)) * _P1 + _P4
    else:
        acc = _P5
    acc += np.uint64(length)
    while at + 8 <= length:
        acc = _rotate(acc ^ _round(np.uint64(0), _word(data, at, 8)), np.uint64(27)) * _P1 + _P4
        at += 8
    if at + 4 <= length:
        acc = _rotate(acc ^ (_word(data, at, 4) * _P1), np.uint64(23)) * _P2 + _P3
        at += 4
    while at < length:
        acc = _rotate(acc ^ (np.uint64(data[at]) * _P5), np.uint64(11)) * _P1
        at += 1
    acc = (acc ^ (acc >> np.uint64(33))) * _P2
    acc = (acc ^ (acc >> np.uint64(29))) * _P3
    return acc ^ (acc >> np.uint64(32))


@inline
def _put(out: U8, at: int, arena: U8, lo: int, hi: int) -> int:
    length = hi - lo
    if length < 255:
        out[at] = length
        at += 1
    else:
        out[at] = 255
        out[at + 1] = length & 255
        out[at + 2] = (length >> 8) & 255
        out[at + 3] = (length >> 16) & 255
        at += 4
    for i in range(lo, hi):
        out[at] = arena[i]
        at += 1
    return at


@kernel("void(int64[::1], int64[::1], int64[::1], uint8[::1], int64[::1], int64, uint64[::1])", group="read")
def hash_rows(
    offsets: I64, names: I64, values: I64, arena: U8, bounds: I64, row_bytes_max: int, out: U64
) -> None:
    """Hash every row; pair p is strings names[p], values[p]; string s is arena[bounds[s]:bounds[s+1]]."""
    buffer = np.empty(row_bytes_max, dtype=np.uint8)
    for row in range(len(out)):
        at = 0
        for p in range(offsets[row], offsets[row + 1]):
            at = _put(buffer, at, arena, bounds[names[p]], bounds[names[p] + 1])
            at = _put(buffer, at, arena, bounds[values[p]], bounds[values[p] + 1])
        out[row] = xxhash64(buffer, at)
