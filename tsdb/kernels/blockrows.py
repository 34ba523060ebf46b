"""Rows of a block: hashes of timestamp vectors, copies of runs, label rows as differences to the row above.

Enters and leaves: CSR columns of int64 or u32. Floats are moved as int64, so signalling NaNs stay what they
are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tsdb.kernels.bits import fold_multiply
from tsdb.kernels.compile import inline, kernel

U64 = np.uint64
_PRIME = U64(0x8EBC6AF09C88C6E3)

_I64 = "Array(int64, 1, 'C', readonly=True)"
_U32 = "Array(uint32, 1, 'C', readonly=True)"


@inline
def equal_runs(numbers: Any, a: Any, b: Any, count: Any) -> Any:
    """Whether numbers[a:a+count] and numbers[b:b+count] are equal."""
    left, right = numbers[a : a + count], numbers[b : b + count]
    i = 0
    while i < count and left[i] == right[i]:
        i += 1
    return i == count


@kernel(f"void({_I64}, {_I64}, {_I64}, uint64, uint64, uint64[::1], uint64[::1])", group="write")
def hash_runs(numbers: Any, lo: Any, hi: Any, key_a: Any, key_b: Any, out_a: Any, out_b: Any) -> None:
    """Two independent 64-bit hashes of each run numbers[lo[k]:hi[k]]; keys are random and odd.

    Neighbours are mostly equal, and comparing is a fraction of hashing.
    """
    for k in range(len(lo)):
        count = hi[k] - lo[k]
        if k > 0 and count == hi[k - 1] - lo[k - 1] and equal_runs(numbers, lo[k - 1], lo[k], count):
            out_a[k] = out_a[k - 1]
            out_b[k] = out_b[k - 1]
            continue
        a, b = key_a ^ U64(count), key_b
        for i in range(lo[k], hi[k]):
            word = U64(numbers[i])
            a = fold_multiply(a ^ word, key_a) ^ b
            b = (b ^ word) * _PRIME
            b ^= b >> U64(29)
        out_a[k] = a
        out_b[k] = b


@kernel(f"int64({_I64}, {_I64}, {_I64}, {_I64}, int64[::1])", group="read")
def copy_runs(source: Any, lo: Any, hi: Any, starts: Any, out: Any) -> Any:
    """Copy each run source[lo[k]:hi[k]] to out[starts[k]:]; -1 where one does not fit, else 0."""
    for k in range(len(lo)):
        count = hi[k] - lo[k]
        if lo[k] < 0 or hi[k] > len(source) or starts[k] < 0 or starts[k] + count > len(out):
            return -1
        part, target = source[lo[k] : hi[k]], out[starts[k] : starts[k] + count]
        for i in range(len(part)):
            target[i] = part[i]
    return 0


@kernel(f"void({_I64}, {_U32}, uint32[::1])", group="write")
def row_steps(offsets: Any, ids: Any, out: Any) -> None:
    """Each id less the id at the same place of the row above (zero where there is none), modulo 2^32."""
    above, above_count = 0, 0
    for row in range(len(offsets) - 1):
        first, count = offsets[row], offsets[row + 1] - offsets[row]
        for j in range(count):
            before = ids[above + j] if j < above_count else np.uint32(0)
            out[first + j] = np.uint32(ids[first + j] - before)
        above, above_count = first, count


@kernel("void(Array(int64, 1, 'C', readonly=True), uint32[::1])", group="read")
def undo_row_steps(offsets: Any, ids: Any) -> None:
    """Differences of `row_steps` back to ids, in place."""
    above, above_count = 0, 0
    for row in range(len(offsets) - 1):
        first, count = offsets[row], offsets[row + 1] - offsets[row]
        for j in range(min(count, above_count)):
            ids[first + j] = np.uint32(ids[first + j] + ids[above + j])
        above, above_count = first, count
