"""Seeded hash of a byte region to two 64-bit words, 32 bytes a round, two independent pairs of lanes.

Enters: a uint8 buffer, a region the caller has bounds-checked, two seeds drawn at random per process, so that
nobody outside can build collisions. Leaves: `(hash, second)`; `hash` is never 0, which marks a free slot of
the table. A round folds 128-bit products, so every input bit reaches every output bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tsdb.kernels.bits import Word, fold_multiply, load32, load64
from tsdb.kernels.compile import device, kernel

_K0 = np.uint64(0xA0761D6478BD642F)
_K1 = np.uint64(0xE7037ED1A0B428DB)
_K2 = np.uint64(0x8EBC6AF09C88C6E3)
_K3 = np.uint64(0x589965CC75374CC3)
_ONE = np.uint64(1)
_EIGHT = np.uint64(8)
_ZERO = np.uint64(0)


@device
def hash_region(
    buffer: npt.NDArray[np.uint8], start: int, end: int, seed0: Word, seed1: Word
) -> tuple[Word, Word]:
    """Hash of `buffer[start:end]`; reads no byte outside the region."""
    length = end - start
    lane0: Word = np.uint64(seed0) ^ _K0
    lane1: Word = np.uint64(seed1) ^ _K1
    key0 = fold_multiply(np.uint64(seed0) ^ _K2, _K3)
    key1 = fold_multiply(np.uint64(seed1) ^ _K3, _K2)
    # Two pairs of lanes take turns: a round waits for the one before it in its own pair only.
    lane2: Word = np.uint64(seed0) ^ _K2
    lane3: Word = np.uint64(seed1) ^ _K3
    position = start
    while position + 32 < end:
        even = load64(buffer, position)
        odd = load64(buffer, position + 8)
        lane0 = fold_multiply(even ^ key0, odd ^ lane0)
        lane1 = fold_multiply(odd ^ key1, even ^ lane1)
        even = load64(buffer, position + 16)
        odd = load64(buffer, position + 24)
        lane2 = fold_multiply(even ^ key0, odd ^ lane2)
        lane3 = fold_multiply(odd ^ key1, even ^ lane3)
        position += 32
    lane0 ^= lane2
    lane1 ^= lane3
    if position + 16 < end:
        even = load64(buffer, position)
        odd = load64(buffer, position + 8)
        lane0 = fold_multiply(even ^ key0, odd ^ lane0)
        lane1 = fold_multiply(odd ^ key1, even ^ lane1)
    left: Word = _ZERO
    right: Word = _ZERO
    if length >= 16:
        left = load64(buffer, end - 16)
        right = load64(buffer, end - 8)
    elif length >= 8:
        left = load64(buffer, start)
        right = load64(buffer, end - 8)
    elif length >= 4:
        left = np.uint64(load32(buffer, start))
        right = np.uint64(load32(buffer, end - 4))
    else:
        for i in range(start, end):
            left = (left << _EIGHT) | np.uint64(buffer[i])
    size = np.uint64(length)
    lane0 = fold_multiply(left ^ key0, right ^ lane0)
    lane1 = fold_multiply(right ^ key1, left ^ lane1)
    lane0 = fold_multiply(lane0 ^ _K1, size ^ key0)
    lane1 = fold_multiply(lane1 ^ _K0, size ^ key1)
    if lane0 == _ZERO:
        lane0 = _ONE
    return lane0, lane1


@kernel("void(uint8[::1], int64[::1], uint64, uint64, uint64[::1], uint64[::1])", group="write")
def hash_regions(
    buffer: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    seed0: Word,
    seed1: Word,
    hashes: npt.NDArray[np.uint64],
    seconds: npt.NDArray[np.uint64],
) -> None:
    """Hash each region `offsets[i] .. offsets[i+1]` of a buffer."""
    for i in range(len(offsets) - 1):
        hashes[i], seconds[i] = hash_region(buffer, offsets[i], offsets[i + 1], seed0, seed1)
